"""Images in and out: reading any image file safely, fitting it for a model, and back to pictures.

Pixels are float tensors (B, 3, H, W) in [-1, 1] (mean and std 0.5), H rows and W columns.
"""

import io
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from unitok.config import PATCH_SIZE

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
Color: TypeAlias = tuple[int, int, int]
Rounding: TypeAlias = Literal["round", "truncate"]

# Other formats that Pillow reads are left out: some of them start other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Above what cameras make, 0.3 GB decoded; also where Pillow begins to warn.
MAX_PIXELS = 89_478_485
# What Pillow's readers raise on damaged files.
DECODE_ERRORS = (
    Image.DecompressionBombError,
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    AttributeError,
    OverflowError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True)
class ImageRecipe:
    """How an image becomes the square, or the grid of patches, that a model takes.

    Pillow's filters widen with the reduction, so every resize here is antialiased.
    """

    fit: Literal["crop", "pad", "stretch", "native"]
    # crop: the shorter side becomes this times the image size first; None crops without a resize.
    resize_ratio: float | None = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    pad_color: Color = (0, 0, 0)  # pad: fills what a square lacks, on both sides alike
    max_side: int = 1024  # native: a longer picture is reduced to it

    def __post_init__(self) -> None:
        for field, allowed in (
            ("fit", ("crop", "pad", "stretch", "native")),
            ("interpolation", ("bilinear", "bicubic")),
        ):
            if (value := getattr(self, field)) not in allowed:
                raise ValueError(f"{field} must be one of {', '.join(allowed)}, got {value!r}")
        if self.max_side < PATCH_SIZE:
            raise ValueError(f"max_side must be at least {PATCH_SIZE}, got {self.max_side}")
        if self.resize_ratio is not None and self.resize_ratio < 1:
            raise ValueError(f"resize_ratio must be at least 1, got {self.resize_ratio}")


RECIPES: dict[str, ImageRecipe] = {
    # The official reconstruction demo: a little larger than needed, then the middle of it.
    "reconstruction": ImageRecipe("crop", resize_ratio=288 / 256),
    # Official rFID, on folders of pictures that have their size already.
    "rfid": ImageRecipe("crop", resize_ratio=None),
    # Official zero-shot classification.
    "zero_shot": ImageRecipe("crop", interpolation="bicubic"),
    # The official MLLM: nothing of a user's picture is cut off. The colour is CLIP's mean.
    "chat": ImageRecipe("pad", pad_color=(122, 116, 104)),
    # Ours: the picture's own aspect and size, as far as whole patches allow.
    "native": ImageRecipe("native"),
}


def load_image(
    source: ImageSource, *, background: Color = (255, 255, 255), max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Read a JPEG, PNG, WebP, GIF, BMP or TIFF file, given as path, bytes or open binary file.

    The result is RGB and upright (EXIF orientation applied), the first frame of an animation,
    laid over `background` where it is transparent. 16-bit channels are scaled to 8 bits; colour
    profiles are not applied. `max_pixels` is checked before anything is decoded.
    """
    name = _checked_name(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_size(image.size, max_pixels)
            return to_rgb(ImageOps.exif_transpose(image), background=background)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"no image can be read from {name}; convert it to one of {', '.join(FORMATS)}"
        ) from error
    except DECODE_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's own message names the file: no permission, disk error
        reason = str(error) or type(error).__name__
        raise ValueError(f"cannot read an image from {name}: {reason}") from error


def to_rgb(image: Image.Image, *, background: Color = (255, 255, 255)) -> Image.Image:
    """`image` in RGB: laid over `background` where transparent, 16-bit grey scaled to 8 bits."""
    if image.mode.startswith("I;16"):
        image = _grey_from_16_bits(image)
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels (mode {image.mode}) have no fixed white; save it with 8 or 16 bits"
        )
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # Pillow keeps the upper half of 16-bit channels, but the key colour in full.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    below = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")


def preprocess(
    image: Image.Image, recipe: str | ImageRecipe = "chat", *, image_size: int = 256
) -> Tensor:
    """Pixels (1, 3, H, W) in [-1, 1], fitted by a recipe or the name of one in `RECIPES`.

    H = W = `image_size`, except that the `native` recipe keeps the picture's own aspect and size,
    each side rounded to whole patches, and reads no `image_size`.
    """
    if image_size < PATCH_SIZE or image_size % PATCH_SIZE:
        raise ValueError(f"image_size must be a multiple of {PATCH_SIZE}, got {image_size}")
    fitted = _fit(to_rgb(image), _recipe(recipe), image_size)
    pixels = torch.from_numpy(np.array(fitted)).permute(2, 0, 1)[None]
    return pixels.float() / 127.5 - 1


def to_pil(pixels: Tensor, *, rounding: Rounding = "round") -> list[Image.Image]:
    """One RGB picture per row of pixels (B, 3, H, W), clamped to [-1, 1].

    Officially, reconstructions are rounded and the pictures for GenAI-Bench are truncated.
    """
    if rounding not in ("round", "truncate"):
        raise ValueError(f"rounding must be round or truncate, got {rounding!r}")
    if pixels.ndim != 4 or pixels.shape[1] != 3 or not pixels.is_floating_point():
        raise ValueError(
            f"pixels must be floats (B, 3, H, W) in [-1, 1], got {pixels.dtype} "
            f"{tuple(pixels.shape)}"
        )
    levels = (pixels.detach().float().clamp(-1, 1) + 1) * 127.5
    if levels.isnan().any():
        raise ValueError("pixels must be numbers, got NaN; the model that made them has diverged")
    whole = levels.round() if rounding == "round" else levels.floor()
    arrays = whole.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in arrays]


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of each pair of pictures, (B,); infinite where equal.

    Both are pixels (B, 3, H, W) in [-1, 1]: the peak is their range, 2. For the value on 8-bit
    pictures, take pixels that went through `to_pil`.
    """
    if first.shape != second.shape:
        raise ValueError(
            f"psnr compares pixels of one shape, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    error = (first.float() - second.float()).square().flatten(1).mean(1)
    return 10 * torch.log10(4 / error)


def _checked_name(source: ImageSource) -> str:
    """What messages call the source; refuses paths at which no file can be read."""
    if isinstance(source, bytes):
        if not source:
            raise ValueError("the image is empty (0 bytes)")
        return "the given bytes"
    if not isinstance(source, str | os.PathLike):
        return str(getattr(source, "name", "the open file"))
    path = Path(source)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name one image file in it")
    if not path.exists():
        raise FileNotFoundError(f"no image file at {path}")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file; name an image file")
    if path.stat().st_size == 0:
        raise ValueError(f"the image file {path} is empty (0 bytes)")
    return str(path)


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if not 0 < width * height <= max_pixels:
        raise ValueError(
            f"it has {width}x{height} pixels, expected 1 to {max_pixels} in all; resize it first"
        )


def _grey_from_16_bits(image: Image.Image) -> Image.Image:
    """Grey with 8 bits, or grey and alpha where one level is declared transparent."""
    levels = np.asarray(image).astype(np.uint32)
    grey = Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    alpha = Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, alpha))


def _recipe(recipe: str | ImageRecipe) -> ImageRecipe:
    if isinstance(recipe, ImageRecipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"no recipe is called {recipe!r}; choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]


def _fit(image: Image.Image, recipe: ImageRecipe, size: int) -> Image.Image:
    if recipe.fit == "crop":
        return _centre_crop(_resize_shorter_side(image, recipe, size), size)
    if recipe.fit == "native":
        return _resize(image, *_native_size(image.size, recipe.max_side), recipe)
    if recipe.fit == "pad":
        image = _pad_to_square(image, recipe.pad_color)
    return _resize(image, size, size, recipe)


def _resize_shorter_side(image: Image.Image, recipe: ImageRecipe, size: int) -> Image.Image:
    if recipe.resize_ratio is None:
        return image
    shorter = round(recipe.resize_ratio * size)
    longer = int(shorter * max(image.size) / min(image.size))
    width, height = (shorter, longer) if image.width <= image.height else (longer, shorter)
    return _resize(image, width, height, recipe)


def _centre_crop(image: Image.Image, size: int) -> Image.Image:
    if min(image.size) < size:
        raise ValueError(
            f"the image must be at least {size}x{size} to be cropped without a resize, got "
            f"{image.width}x{image.height}; choose a recipe that resizes"
        )
    # As in torchvision: an odd remainder is halved to the even side.
    left, top = round((image.width - size) / 2), round((image.height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def _native_size(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height in whole patches, each at least one and at most `max_side` pixels."""
    scale = min(1.0, max_side / max(size))
    most = max_side // PATCH_SIZE
    width, height = (
        min(most, max(1, int(side * scale / PATCH_SIZE + 0.5))) * PATCH_SIZE for side in size
    )
    return width, height


def _pad_to_square(image: Image.Image, color: Color) -> Image.Image:
    side = max(image.size)
    _check_elongation(image, side, side)
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _resize(image: Image.Image, width: int, height: int, recipe: ImageRecipe) -> Image.Image:
    _check_elongation(image, width, height)
    return image.resize((width, height), Image.Resampling[recipe.interpolation.upper()])


def _check_elongation(image: Image.Image, width: int, height: int) -> None:
    """A ribbon one pixel wide would take any amount of memory once scaled up or padded."""
    if width * height > MAX_PIXELS:
        raise ValueError(
            f"the image is too elongated ({image.width}x{image.height} pixels) for its recipe; "
            "crop it first"
        )
