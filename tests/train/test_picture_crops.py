"""Crops of training pictures."""

import random

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from train.picture_config import CropConfig
from train.picture_crops import choose_box, crop_pixels
from unitok.image import ImageRecipe, preprocess


def gradient(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).rotate(90).convert("RGB")


def boxes(size: tuple[int, int], crop: CropConfig, count: int = 200):
    return [choose_box(size, crop, rng=random.Random(seed)) for seed in range(count)]


def test_random_resized_boxes_keep_to_area_and_aspect():
    crop = CropConfig(scale=(0.3, 0.6), ratio=(0.8, 1.25))
    areas, aspects = [], []
    for left, top, right, bottom in boxes((300, 200), crop):
        assert 0 <= left < right <= 300
        assert 0 <= top < bottom <= 200
        areas.append((right - left) * (bottom - top) / (300 * 200))
        aspects.append((right - left) / (bottom - top))
    # Sides are whole pixels: both may exceed their range by one percent.
    assert 0.297 <= min(areas) < 0.35 < 0.55 < max(areas) <= 0.606
    assert 0.79 <= min(aspects) < 0.85 < 1.18 < max(aspects) <= 1.26


def test_an_elongated_picture_gives_the_largest_allowed_box():
    for left, top, right, bottom in boxes((1000, 10), CropConfig(scale=(1, 1)), 20):
        assert (top, bottom) == (0, 10)
        assert right - left == 13


def test_a_ribbon_one_pixel_wide_is_cut_too():
    pixels = crop_pixels(gradient(1, 500), CropConfig(), image_size=32, rng=random.Random(0))
    assert pixels.shape == (3, 32, 32)


def test_a_random_square_is_anywhere_and_a_central_one_in_the_middle():
    random_boxes = set(boxes((300, 200), CropConfig(kind="random", resize_ratio=1.25)))
    assert len(random_boxes) > 100
    assert all(right - left == bottom - top == 160 for left, top, right, bottom in random_boxes)
    assert set(boxes((300, 200), CropConfig(kind="centre", resize_ratio=1.25))) == {
        (70, 20, 230, 180)
    }


def test_a_central_crop_is_that_of_an_evaluation_but_for_its_border():
    image = gradient(96, 64)
    crop = CropConfig(kind="centre")
    pixels = crop_pixels(image, crop, image_size=32, rng=random.Random(0))
    expected = preprocess(image, ImageRecipe("crop", interpolation="bicubic"), image_size=32)
    # An evaluation resizes first, so its filter also sees what is cut off: one level inside, 16 in
    # the outermost pixels.
    difference = (pixels - expected[0]).abs()
    assert difference[:, 2:-2, 2:-2].max() < 0.01
    assert difference.max() < 0.13


def test_flips_come_as_often_as_asked():
    image = gradient(32, 32)
    plain = crop_pixels(image, CropConfig(kind="centre"), image_size=32, rng=random.Random(0))
    crop = CropConfig(kind="centre", flip=0.25)
    found = [crop_pixels(image, crop, image_size=32, rng=random.Random(i)) for i in range(200)]
    num_flipped = sum(torch.equal(pixels, plain.flip(-1)) for pixels in found)
    assert 30 <= num_flipped <= 70
    assert all(torch.equal(p, plain) or torch.equal(p, plain.flip(-1)) for p in found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": (0.5, 1.5)}, "scale must be two shares"),
        ({"scale": (0.9, 0.5)}, "scale must be two shares"),
        ({"ratio": (0, 1)}, "ratio must be two ratios"),
        ({"flip": 2}, "less than or equal to 1"),
        ({"resize_ratio": 0.5}, "greater than or equal to 1"),
        ({"rotate": 90}, "unknown key 'rotate'"),
    ],
)
def test_wrong_crops_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        CropConfig(**values)
