"""Features of whole folders of pictures, and what must be known about a folder to trust a FID."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from eval.fid_resize import RESIZES, ResizeName
from eval.file_hashes import hash_lines
from eval.inception import FeatureExtractor
from unitok.files import atomic_write

# What clean-fid looks for, in both cases, except for arrays.
SUFFIXES = frozenset(
    {".bmp", ".jpg", ".jpeg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"},
)
BATCH_SIZE = 32
MAX_READERS = 8


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
    parts: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PictureFeatures:
    """Features and logits of picture files, resized to Inception's input by `resize`.

    With a folder for `parts`, each batch is stored there, and one that was stored by a run that was
    stopped is not computed again.
    """
    batches, num_done = [], 0
    with ThreadPoolExecutor(min(MAX_READERS, os.cpu_count() or 1)) as readers:
        for start in range(0, len(paths), batch_size):
            batch = paths[start : start + batch_size]
            part = None if parts is None else parts / _part_name(batch, extractor, resize)
            if part is not None and part.is_file():
                batches.append(load_file(part))
            else:
                read = readers.map(partial(_read, resize=resize), batch)
                batches.append(_extract_batch(read, extractor, part))
            num_done += len(batch)
            if progress is not None:
                progress(num_done, len(paths))
    return _join(paths, batches)


def _join(paths: Sequence[Path], batches: Sequence[dict[str, NDArray]]) -> PictureFeatures:
    """What `_extract_batch` gave of all pictures."""
    joined = {name: np.concatenate([each[name] for each in batches]) for name in batches[0]}
    sizes = Counter(f"{width}x{height}" for width, height in joined["sizes"].tolist())
    return PictureFeatures(
        tuple(paths), joined["features"], joined["logits"], dict(sizes.most_common())
    )


def _part_name(paths: Sequence[Path], extractor: FeatureExtractor, resize: ResizeName) -> str:
    """Another one for other or changed files, another network or another resize."""
    files = [(path, path.stat()) for path in paths]
    lines = [f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}" for path, stat in files]
    key = hash_lines([extractor.name, extractor.sha256, resize, *lines])
    return f"{key}.safetensors"


def _extract_batch(
    read: Iterable[tuple[NDArray, tuple[int, int]]], extractor: FeatureExtractor, part: Path | None
) -> dict[str, NDArray]:
    """Features, logits and sizes (B, 2), width first, of pictures; also stored in `part`."""
    pictures, sizes = zip(*read, strict=True)
    output = extractor.extract(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2))
    extracted = {
        "features": output.features.cpu().numpy(),
        "logits": output.logits.cpu().numpy(),
        "sizes": np.array(sizes),
    }
    if part is not None:
        part.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(part) as temporary:
            save_file(extracted, temporary)
    return extracted


def _read(path: Path, resize: ResizeName) -> tuple[NDArray, tuple[int, int]]:
    """A resized picture (299, 299, 3), and the file's own width and height."""
    try:
        # Not turned upright and not laid over white: the official programs convert, no more.
        with Image.open(path) as image:
            picture = np.asarray(image.convert("RGB"))
    except OSError as error:
        raise ValueError(f"cannot read the picture {path} ({error}); draw or copy it again") from (
            error
        )
    height, width = picture.shape[:2]
    return RESIZES[resize](picture), (width, height)


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
