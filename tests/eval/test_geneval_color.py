"""The pictures and prompts that GenEval's colour classifier sees, against recorded ones."""

import hashlib
from operator import itemgetter

import numpy as np
import pytest
from PIL import Image

from eval.geneval_color import color_prompts, object_crop
from eval.geneval_rules import COLORS, Detection, parse_options
from tests.eval.scoring_goldens import load_cases


def draw_formula_image(width, height):
    y, x = np.mgrid[:height, :width]
    channels = [7 * x + 3 * y, 5 * x + 11 * y, x + 13 * y]
    return Image.fromarray((np.stack(channels, axis=-1) % 256).astype(np.uint8))


def draw_mask(kind, width, height):
    y, x = np.mgrid[:height, :width]
    radius = min(width, height) // 3
    return {
        "none": None,
        "empty": np.zeros((height, width), dtype=bool),
        "stripes": (x + 2 * y) % 5 != 0,
        "disc": (x - width // 2) ** 2 + (y - height // 2) ** 2 <= radius**2,
    }[kind]


@pytest.mark.parametrize("case", load_cases("geneval_crops"), ids=itemgetter("id"))
def test_crops_equal_the_official_ones(case):
    size = case["image_size"]
    detection = Detection(case["box"], 1.0, mask=draw_mask(case["mask"], *size))
    options = parse_options(f"{key}={value}" for key, value in case["options"].items())
    crop = object_crop(draw_formula_image(*size), detection, options=options)
    expected = case["expected"]
    assert list(crop.size) == expected["crop_size"]
    assert hashlib.sha256(crop.tobytes()).hexdigest() == expected["sha256_rgb"]


@pytest.mark.parametrize("case", load_cases("geneval_color_prompts"), ids=itemgetter("class"))
def test_color_prompts_equal_the_official_ones(case):
    prompts = color_prompts(case["class"])
    assert {color: list(texts) for color, texts in prompts.items()} == case["expected"]
    assert tuple(prompts) == COLORS


def test_a_rotated_photo_is_turned_upright_before_the_crop():
    upright = draw_formula_image(40, 20)
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.getexif()[0x0112] = 6  # orientation: show it turned by 90 degrees clockwise
    detection = Detection((30, 5, 40, 15), 1.0, mask=np.ones((20, 40), dtype=bool))
    crop = object_crop(stored, detection)
    assert crop.tobytes() == upright.crop((30, 5, 40, 15)).tobytes()


def test_a_mask_of_another_size_is_an_error():
    detection = Detection((0, 0, 5, 5), 1.0, mask=np.ones((40, 20), dtype=bool))
    with pytest.raises(ValueError, match=r"\(20, 40\), got bool of \(40, 20\)"):
        object_crop(draw_formula_image(40, 20), detection)


def test_a_reversed_box_is_an_error():
    with pytest.raises(ValueError, match="expected x1 <= x2 and y1 <= y2"):
        object_crop(draw_formula_image(40, 20), Detection((9, 0, 5, 5), 1.0))
