"""Code maps as pictures: every code has a colour of its own, near codes far apart."""

import colorsys

import numpy as np
from PIL import Image
from torch import Tensor

GOLDEN_RATIO = 0.6180339887  # steps of it spread hues evenly, however many there are
LIGHTNESSES = (0.42, 0.55, 0.68)
SATURATION = 0.55


def code_color(code: int) -> tuple[int, int, int]:
    """An RGB colour."""
    hue = code * GOLDEN_RATIO % 1
    lightness = LIGHTNESSES[code % len(LIGHTNESSES)]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, SATURATION)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_code_map(codes: Tensor) -> Image.Image:
    """Codes (h, w) as a picture with one pixel for each."""
    colors = [[code_color(code) for code in row] for row in codes.tolist()]
    return Image.fromarray(np.array(colors, dtype=np.uint8))
