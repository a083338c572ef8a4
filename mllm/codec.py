"""The image tokenizer on files: pictures to a codes file, and back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mllm.devices import explain_out_of_memory
from mllm.drawings import prepare_folder
from mllm.pictures import EXAMPLE_PREFIX, check_png, make_grid, read_pixels, save_png
from mllm.read_ahead import read_ahead
from unitok.codes import ImageCodes, check_fingerprint, load_codes, save_codes
from unitok.files import check_output
from unitok.image import preprocess, psnr, to_pil
from unitok.model import UniTok

Progress = Callable[[int, int], None]  # files done, files in all
MEMORY_REMEDY = "make the picture smaller, or use dtype bfloat16 or device cpu"


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A picture that went through the tokenizer."""

    original: Image.Image  # as the tokenizer sees it
    decoded: Image.Image
    codes: Tensor  # (L, K) int64
    psnr: float  # dB of 8-bit pixels


def reconstruct_file(
    tokenizer: UniTok,
    source: str,
    *,
    output: str | PathLike[str],
    recipe: str = "reconstruction",
    force: bool = False,
) -> float:
    """Write a picture and its reconstruction side by side; returns the PSNR of 8-bit pixels."""
    path = check_png(output, force=force)
    pixels = load_pixels(tokenizer, source, recipe)
    with explain_out_of_memory(f"reconstructing {source}", MEMORY_REMEDY):
        result = reconstruct(tokenizer, pixels)
    notes = {"psnr": f"{result.psnr:.2f}", "tokenizer_fingerprint": tokenizer.fingerprint}
    save_png(make_grid([result.original, result.decoded], columns=2), path, notes=notes)
    return result.psnr


def reconstruct(tokenizer: UniTok, pixels: Tensor) -> Reconstruction:
    """Encode and decode pixels (1, 3, H, W) in [-1, 1]."""
    with torch.inference_mode():
        codes = tokenizer.encode(pixels)
        original, decoded = to_pil(
            torch.cat([pixels, tokenizer.decode(codes, tokenizer.grid(pixels))])
        )
    value = psnr(preprocess(original, "native"), preprocess(decoded, "native")).item()
    return Reconstruction(original, decoded, codes=codes[0].cpu(), psnr=value)


def encode_files(
    tokenizer: UniTok,
    sources: Sequence[str],
    *,
    output: str | PathLike[str],
    recipe: str = "reconstruction",
    force: bool = False,
    progress: Progress | None = None,
) -> list[ImageCodes]:
    """Write the codes of pictures into one codes file, each under its name without suffix."""
    path = check_output(output, force=force)
    names = name_pictures(sources)
    images = []
    # Read while others are encoded; on the processor until their turn, to spare the GPU's memory.
    read = read_ahead(lambda source: _read_pixels(tokenizer, source, recipe), sources)
    for number, (source, name, pixels) in enumerate(zip(sources, names, read, strict=True), 1):
        with torch.inference_mode(), explain_out_of_memory(f"encoding {source}", MEMORY_REMEDY):
            codes = tokenizer.encode(pixels.to(tokenizer.device))[0].cpu()
        images.append(ImageCodes(codes, tokenizer.grid(pixels), name))
        if progress is not None:
            progress(number, len(sources))
    save_codes(
        path,
        images,
        fingerprint=tokenizer.fingerprint,
        codebook_size=tokenizer.config.codebook_size,
        dtype=str(tokenizer.dtype).removeprefix("torch."),
    )
    return images


def decode_file(
    tokenizer: UniTok,
    source: str | PathLike[str],
    *,
    output: str | PathLike[str],
    force: bool = False,
    progress: Progress | None = None,
) -> list[Path]:
    """Decode every picture of a codes file into the folder `output`, as NAME.png."""
    content = load_codes(source)
    check_fingerprint(content, tokenizer.fingerprint)
    folder = prepare_folder(output)
    paths = [check_output(folder / f"{image.name}.png", force=force) for image in content.images]
    for number, (image, path) in enumerate(zip(content.images, paths, strict=True), start=1):
        save_png(decode_codes(tokenizer, image), path)
        if progress is not None:
            progress(number, len(paths))
    return paths


def decode_codes(tokenizer: UniTok, image: ImageCodes) -> Image.Image:
    codes = image.codes[None].to(tokenizer.device)
    with torch.inference_mode(), explain_out_of_memory(f"decoding {image.name}", "use device cpu"):
        return to_pil(tokenizer.decode(codes, image.grid))[0]


def load_pixels(tokenizer: UniTok, source: str, recipe: str) -> Tensor:
    """A picture file as the tokenizer takes it, (1, 3, H, W), where the tokenizer is."""
    return _read_pixels(tokenizer, source, recipe).to(tokenizer.device)


def _read_pixels(tokenizer: UniTok, source: str, recipe: str) -> Tensor:
    return read_pixels(source, recipe, image_size=tokenizer.config.image_size)[1]


def name_pictures(sources: Sequence[str]) -> list[str]:
    """What each picture is called in a codes file; no two may have one name."""
    names = [Path(source.removeprefix(EXAMPLE_PREFIX)).stem for source in sources]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"two images are named {repeated[0]!r} once folder and suffix are left out; rename "
            "one, or write them to different codes files"
        )
    return names
