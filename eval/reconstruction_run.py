"""Pictures through a tokenizer and back, with all that is measured about each of them on disk.

Officially, every picture is cropped in the middle without a resize, reconstructed, rounded to 8
bits, stored as PNG, and compared with the uncropped source: see `eval/reconstruction_report.py`
for what becomes of the numbers.

Shapes: B pictures of a batch, H x W pixels, L visual tokens, K codebooks, D features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from eval.batch_parts import BatchParts
from eval.fid_resize import ResizeName, resize_tensorflow
from eval.inception import FeatureExtractor, Inception
from eval.lpips_distance import LpipsDistance
from eval.picture_sources import PictureData, describe_source, open_source
from eval.precision import full_precision
from eval.processes import CountDone
from eval.result_folder import begin_folder
from eval.ssim import ssim
from eval.tokenizer_peers import Reconstructor, load_reconstructor
from eval.versions import model_versions
from mllm.devices import choose_dtype, explain_out_of_memory
from mllm.pictures import save_png
from mllm.read_ahead import read_batches
from mllm.share import Share, process_device
from unitok.image import RECIPES, preprocess, psnr, to_pil

PICTURES_FOLDER = "reconstructions"
PARTS_FOLDER = "parts"
OFFICIAL_RECIPE = "rfid"
RESIZE: ResizeName = "tensorflow"
CODE_TYPE = np.uint16  # as in codes files


@dataclass(frozen=True)
class ReconstructionConfig:
    """What to reconstruct by whom, what to measure, and where to put it."""

    model: str  # see eval/tokenizer_peers.py
    data: PictureData
    output: Path
    recipe: str = OFFICIAL_RECIPE
    image_size: int | None = None  # None: the model's own
    batch_size: int = 16
    device: str = "auto"
    dtype: str = "float32"
    use_rfid: bool = True
    use_lpips: bool = True
    inception: Path | None = None  # weights; None: where its library keeps them
    alexnet: Path | None = None

    def __post_init__(self) -> None:
        allowed = [name for name, recipe in RECIPES.items() if recipe.fit != "native"]
        if self.recipe not in allowed:  # pictures of one batch need one size
            raise ValueError(f"recipe must be one of {', '.join(allowed)}, got {self.recipe!r}")


@dataclass(frozen=True, eq=False)
class Instruments:
    """The networks of a run: the one that is measured, and those that look at its pictures."""

    peer: Reconstructor
    extractor: FeatureExtractor | None  # None: no rFID and no Inception Score
    lpips: LpipsDistance | None

    @classmethod
    def load(cls, config: ReconstructionConfig) -> "Instruments":
        """On the device of this process; small files first, whose lack is told at once."""
        device = process_device(config.device)
        extractor = (
            Inception.from_file(config.inception, device=device) if config.use_rfid else None
        )
        lpips = LpipsDistance.from_file(config.alexnet, device=device) if config.use_lpips else None
        dtype = choose_dtype(config.dtype, device)
        return cls(load_reconstructor(config.model, device=device, dtype=dtype), extractor, lpips)


@dataclass(frozen=True, eq=False)
class PreparedPicture:
    """A picture of the source as the networks take it."""

    pixels: Tensor  # (3, H, W) in [-1, 1], what the model gets
    reference: NDArray | None  # (299, 299, 3), what Inception gets; None: no rFID is asked for
    size: tuple[int, int]  # height and width of the source


class ReconstructionRun:
    """One folder of reconstructions, and the measurements beside it."""

    def __init__(self, config: ReconstructionConfig) -> None:
        """Opens the source; raises ValueError or FileNotFoundError if it has no pictures."""
        self.config = config
        self.source = open_source(config.data)
        self.parts = BatchParts(
            config.output / PARTS_FOLDER,
            num_items=len(self.source.names),
            batch_size=config.batch_size,
        )

    def measure(self, tools: Instruments, share: Share, *, count_done: CountDone) -> None:
        """Reconstruct and measure what is missing of a share.

        A folder that was begun with other settings is refused. `count_done` is called with the
        number of pictures of each batch that is stored.
        """
        size = self.config.image_size or tools.peer.image_size
        # A model may lie elsewhere than before: its fingerprint is what is compared.
        remarks = {"model": self.config.model, "versions": model_versions()}
        begin_folder(self.config.output, self._settings(tools, size), remarks=remarks)
        missing = self.parts.missing(share)
        batches = read_batches(lambda number: self._prepare(number, size), missing)
        for batch, prepared in zip(missing, batches, strict=True):
            arrays, pictures = measure_batch(tools, prepared)
            for number, picture in zip(batch, pictures, strict=True):
                path = self.picture_path(number)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_png(picture, path)
            self.parts.store(batch, arrays)
            count_done(len(batch))

    def picture_path(self, number: int) -> Path:
        """Where the reconstruction of a picture lies."""
        return self.config.output / PICTURES_FOLDER / f"{self.source.names[number]}.png"

    def fit(self, number: int, size: int) -> Image.Image:
        """A picture of the source as the model takes it."""
        return to_pil(self._pixels(self.source.read(number), number, size=size)[None])[0]

    # -- inside ----------------------------------------------------------------------------------

    def _prepare(self, number: int, size: int) -> PreparedPicture:
        picture = self.source.read(number)
        pixels = self._pixels(picture, number, size=size)
        reference = None
        if self.config.use_rfid:
            # Officially the whole source; after another recipe, what the model has seen of it.
            is_official = self.config.recipe == OFFICIAL_RECIPE
            seen = picture if is_official else to_pil(pixels[None])[0]
            reference = resize_tensorflow(np.asarray(seen))
        return PreparedPicture(pixels, reference, (picture.height, picture.width))

    def _pixels(self, picture: Image.Image, number: int, *, size: int) -> Tensor:
        try:
            return preprocess(picture, self.config.recipe, image_size=size)[0]
        except ValueError as error:
            raise ValueError(f"cannot use {self.source.names[number]}: {error}") from error

    def _settings(self, tools: Instruments, size: int) -> dict[str, Any]:
        """All that decides the numbers, for JSON."""
        config, extractor, lpips = self.config, tools.extractor, tools.lpips
        return {
            "model_fingerprint": tools.peer.fingerprint,
            "codebook_size": tools.peer.codebook_size,
            **describe_source(self.source, config.data),
            "recipe": config.recipe,
            "image_size": size,
            "batch_size": config.batch_size,
            "device": process_device(config.device).type,
            "dtype": config.dtype,
            "extractor": extractor and extractor.name,
            "extractor_sha256": extractor and extractor.sha256,
            "resize": extractor and RESIZE,
            "lpips": lpips and lpips.name,
            "lpips_sha256": lpips and lpips.sha256,
        }


@torch.inference_mode()
def measure_batch(
    tools: Instruments, prepared: Sequence[PreparedPicture]
) -> tuple[dict[str, NDArray], list[Image.Image]]:
    """Arrays (B, ...) of all that is measured, and the reconstructions as they are stored."""
    pixels = torch.stack([each.pixels for each in prepared])
    remedy = "set a smaller --batch-size"
    with full_precision(), explain_out_of_memory(f"reconstructing {len(pixels)}", remedy):
        reconstruction = tools.peer.reconstruct(pixels)
    pictures = to_pil(reconstruction.pixels)
    stored = torch.cat([preprocess(picture, "native") for picture in pictures])
    arrays = {
        "size": np.array([each.size for each in prepared]),
        "psnr": psnr(pixels, stored).numpy(),
        "ssim": ssim(pixels, stored).numpy(),
    }
    if reconstruction.codes is not None:
        arrays["codes"] = reconstruction.codes.cpu().numpy().astype(CODE_TYPE)
    if tools.lpips is not None:
        arrays["lpips"] = tools.lpips.compare(pixels, stored).cpu().numpy()
    if tools.extractor is not None:
        references = [each.reference for each in prepared if each.reference is not None]
        arrays.update(_look_at(tools.extractor, pictures, references=references))
    return arrays, pictures


def _look_at(
    extractor: FeatureExtractor, pictures: Sequence[Image.Image], *, references: Sequence[NDArray]
) -> dict[str, NDArray]:
    """Inception's features of both sides, and its logits of the reconstructions."""
    resized = [resize_tensorflow(np.asarray(picture)) for picture in pictures]
    source, ours = (
        extractor.extract(torch.from_numpy(np.stack(values)).permute(0, 3, 1, 2))
        for values in (references, resized)
    )
    return {
        "reference_features": source.features.cpu().numpy(),
        "features": ours.features.cpu().numpy(),
        "logits": ours.logits.cpu().numpy(),
    }


@dataclass(frozen=True)
class ReconstructionTask:
    """The run, for several processes."""

    config: ReconstructionConfig

    def run(self, share: Share, count_done: CountDone) -> None:
        """Measure this process's share."""
        run = ReconstructionRun(self.config)
        run.measure(Instruments.load(self.config), share, count_done=count_done)
