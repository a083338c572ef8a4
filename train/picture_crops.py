"""From a picture of any size to the square that a tokenizer is trained on.

Crops follow the training of CLIP models. All chance comes from the generator that the caller seeds
for the sample, so a sample is cut alike in whatever batch, process or run it is.
"""

import math
import random

from PIL import Image
from torch import Tensor

from train.picture_config import CropConfig
from unitok.image import ImageRecipe, preprocess

CROP_TRIES = 10  # for a box that fits, before the largest one is taken

Box = tuple[int, int, int, int]  # left, top, right, bottom


def crop_pixels(
    image: Image.Image, crop: CropConfig, *, image_size: int, rng: random.Random
) -> Tensor:
    """Pixels (3, S, S) in [-1, 1] of a random or central part of an RGB picture."""
    box = choose_box(image.size, crop, rng=rng)
    resize = ImageRecipe("stretch", interpolation=crop.interpolation)
    pixels = preprocess(image.crop(box), resize, image_size=image_size)[0]
    return pixels.flip(-1) if rng.random() < crop.flip else pixels


def choose_box(size: tuple[int, int], crop: CropConfig, *, rng: random.Random) -> Box:
    """The part to keep of a picture of `size` (width, height)."""
    if crop.kind == "random_resized":
        width, height = _random_sides(size, crop, rng=rng)
    else:
        width = height = max(1, round(min(size) / crop.resize_ratio))
    free_width, free_height = size[0] - width, size[1] - height
    if crop.kind == "centre":
        left, top = free_width // 2, free_height // 2
    else:
        left, top = rng.randint(0, free_width), rng.randint(0, free_height)
    return left, top, left + width, top + height


def _random_sides(
    size: tuple[int, int], crop: CropConfig, *, rng: random.Random
) -> tuple[int, int]:
    """Width and height of a box of random area and aspect."""
    for _ in range(CROP_TRIES):
        area = size[0] * size[1] * rng.uniform(*crop.scale)
        aspect = math.exp(rng.uniform(*map(math.log, crop.ratio)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= size[0] and 0 < height <= size[1]:
            return width, height
    # The picture is too elongated: as much of it as the allowed aspects leave.
    aspect = min(max(size[0] / size[1], crop.ratio[0]), crop.ratio[1])
    width, height = min(size[0], round(size[1] * aspect)), min(size[1], round(size[0] / aspect))
    return max(1, width), max(1, height)
