"""Features of whole folders of pictures, and what must be known about a folder to trust a FID."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from eval.fid_resize import RESIZES, ResizeName
from eval.file_hashes import hash_lines
from eval.inception import FeatureExtractor
from mllm.read_ahead import read_batches

# What clean-fid looks for, in both cases, except for arrays.
SUFFIXES = frozenset(
    {".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"},
)
BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class PictureFeatures:
    """What a network says about N pictures, in the order of their paths."""

    paths: tuple[Path, ...]
    features: NDArray  # (N, D) float32
    logits: NDArray  # (N, C) float32
    sizes: dict[str, int]  # such as "256x256" -> number of pictures


def find_pictures(folder: Path) -> list[Path]:
    """Every picture below `folder`, sorted; hidden files are left out, as in clean-fid."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of pictures at {folder}; expected one with image files")
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not _is_hidden(path.relative_to(folder))
    ]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds no picture; expected files ending in {', '.join(sorted(SUFFIXES))}"
        )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def extract_features(
    paths: Sequence[Path],
    extractor: FeatureExtractor,
    *,
    resize: ResizeName,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int, int], None] | None = None,
) -> PictureFeatures:
    """Features and logits of picture files, resized to Inception's input by `resize`."""
    features, logits, sizes = [], [], Counter[str]()
    for pixels, batch_sizes in _read_batches(paths, resize, batch_size=batch_size):
        extracted = extractor.extract(pixels)
        features.append(extracted.features.cpu().numpy())
        logits.append(extracted.logits.cpu().numpy())
        sizes.update(batch_sizes)
        if progress is not None:
            progress(sizes.total(), len(paths))
    return PictureFeatures(
        tuple(paths), np.concatenate(features), np.concatenate(logits), dict(sizes.most_common())
    )


def _read_batches(
    paths: Sequence[Path], resize: ResizeName, *, batch_size: int
) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """Pixels (B, 3, 299, 299) and the sizes of the files, read by several threads."""
    batches = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    for batch in read_batches(lambda path: _read(path, resize), batches):
        pictures, sizes = zip(*batch, strict=True)
        yield torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), list(sizes)


def _read(path: Path, resize: ResizeName) -> tuple[NDArray, str]:
    """A resized picture (299, 299, 3), and the file's own size as text."""
    picture = np.asarray(read_rgb(path))
    height, width = picture.shape[:2]
    return RESIZES[resize](picture), f"{width}x{height}"


def read_rgb(file: Path | BinaryIO, name: object = None) -> Image.Image:
    """An RGB picture as the official programs read it; errors name the file, or say `name`."""
    try:
        # Not turned upright and not laid over white: the official programs convert, no more.
        with Image.open(file) as image:
            return image.convert("RGB")
    except OSError as error:
        raise ValueError(
            f"cannot read the picture {name or file} ({error}); draw or copy it again"
        ) from error


def describe_folder(folder: Path, pictures: PictureFeatures) -> dict[str, Any]:
    """What a reader of a score must know about one side of it, for JSON."""
    names = [path.relative_to(folder).as_posix() for path in pictures.paths]
    return {
        "folder": str(folder),
        "num_pictures": len(names),
        "names_sha256": hash_lines(names),
        "formats": dict(Counter(path.suffix.lower() for path in pictures.paths).most_common()),
        "sizes": pictures.sizes,
    }
