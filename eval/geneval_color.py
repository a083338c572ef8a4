"""What GenEval shows CLIP to name an object's colour: the prompts and the picture of the object."""

import numpy as np
from PIL import Image, ImageColor, ImageOps

from eval.geneval_rules import COLORS, KEEP_BACKGROUND, OFFICIAL_OPTIONS, Detection, GenEvalOptions

# The article stays "a" before a vowel, as officially.
_TEMPLATES = (
    "a photo of a {color} {class_name}",
    "a photo of a {color}-colored {class_name}",
    "a photo of a {color} object",
)


def color_prompts(class_name: str) -> dict[str, tuple[str, ...]]:
    """The three prompts of every colour, in the order that settles ties."""
    return {
        color: tuple(text.format(color=color, class_name=class_name) for text in _TEMPLATES)
        for color in COLORS
    }


def object_crop(
    image: Image.Image, detection: Detection, *, options: GenEvalOptions = OFFICIAL_OPTIONS
) -> Image.Image:
    """The RGB picture of one object: background painted over, cut to its box.

    The mask belongs to the image as it is shown, so an EXIF rotation is applied first. Without a
    mask the background stays. A box beyond the image gives black there; a box that rounds to no
    pixels gives an empty picture, which no image transform accepts.
    """
    upright = ImageOps.exif_transpose(image).convert("RGB")
    if detection.mask is not None:
        upright = _paint_background(upright, detection.mask, bgcolor=options.bgcolor)
    if not options.crop:
        return upright
    left, top, right, bottom = (round(edge) for edge in detection.box)  # half to even
    if right < left or bottom < top:
        raise ValueError(f"cannot crop box {detection.box}: expected x1 <= x2 and y1 <= y2")
    return upright.crop((left, top, right, bottom))


def _paint_background(image: Image.Image, mask: np.ndarray, *, bgcolor: str) -> Image.Image:
    if mask.dtype != np.bool_ or mask.shape != (image.height, image.width):
        raise ValueError(
            f"a mask must be bool of the image's (height, width) {(image.height, image.width)}, "
            f"got {mask.dtype} of {mask.shape}"
        )
    if bgcolor == KEEP_BACKGROUND:
        return image
    background = np.array(ImageColor.getcolor(bgcolor, "RGB"), dtype=np.uint8)
    return Image.fromarray(np.where(mask[..., None], np.asarray(image), background))
