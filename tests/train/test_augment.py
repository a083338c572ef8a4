"""DiffAugment and the fading blur: per sample, differentiable, within the published strengths."""

import math

import pytest
import torch
from torch import Tensor

from train.augment import augment, blur, fading_sigma, window

SEEDS = torch.arange(40, 48)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(SEEDS), 3, 24, 32, generator=generator) * 2 - 1


def test_a_sample_is_augmented_alike_whatever_it_is_batched_with(pixels):
    together = augment(pixels, SEEDS, blur_sigma=1.5)
    order = torch.tensor([5, 0, 3])
    few = augment(pixels[order], SEEDS[order], blur_sigma=1.5)
    alone = augment(pixels[5:6], SEEDS[5:6], blur_sigma=1.5)
    # Sums may be taken in another order; measured 1e-7.
    torch.testing.assert_close(few, together[order], atol=1e-6, rtol=0)
    torch.testing.assert_close(alone, together[5:6], atol=1e-6, rtol=0)
    assert torch.equal(few == 0, together[order] == 0)  # cut and moved to the very pixel


def test_samples_of_one_picture_differ_by_their_seeds(pixels):
    same = pixels[:1].expand(len(SEEDS), -1, -1, -1)
    augmented = augment(same, SEEDS)
    assert augmented.shape == same.shape
    assert len(augmented.flatten(1).unique(dim=0)) == len(SEEDS)


def test_pictures_move_by_an_eighth_at_most_in_every_direction():
    seeds = torch.arange(2000)
    marked = torch.full((1, 3, 16, 32), -0.1)
    marked[:, :, 8, 16] = 1.0
    moved = augment(marked.expand(2000, -1, -1, -1), seeds, cutout=0)
    brightest = moved.sum(dim=1).flatten(1).argmax(dim=1)
    rows, columns = brightest // 32 - 8, brightest % 32 - 16
    assert set(rows.tolist()) == set(range(-2, 3))
    assert set(columns.tolist()) == set(range(-4, 5))


def test_a_fifth_of_each_side_is_cut_out_and_one_colour_moves_in():
    seeds = torch.arange(200)
    white = torch.ones(200, 3, 20, 40)
    cut = augment(white, seeds, translation=0)
    is_cut = (cut == 0).all(dim=1)
    sizes = is_cut.flatten(1).sum(dim=1)
    assert sizes.max() == 4 * 8  # a fifth of each side
    assert sizes.min() >= 2 * 4  # in a corner, a quarter of it is left
    moved = augment(white, seeds, cutout=0)
    assert all(len(picture.unique()) <= 2 for picture in moved)


def test_brightness_saturation_and_contrast_stay_within_their_ranges():
    seeds = torch.arange(2000)
    coloured = torch.zeros(2000, 3, 2, 2)
    coloured[:, 0, 0] = 0.6  # the upper half is reddish, of mean 0.2; the picture's mean is 0.1
    result = augment(coloured, seeds, translation=0, cutout=0)
    shift = result.mean(dim=(1, 2, 3)) - 0.1
    grey = result.mean(dim=1)
    contrast = (grey[:, 0, 0] - grey[:, 1, 0]) / 0.2
    saturation = (result[:, 0, 0, 0] - result[:, 1, 0, 0]) / 0.6 / contrast
    for values, low, high in ((shift, -0.5, 0.5), (contrast, 0.5, 1.5), (saturation, 0, 2)):
        assert values.min() == pytest.approx(low, abs=0.01)
        assert values.max() == pytest.approx(high, abs=0.01)
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.05)


def test_gradients_pass_through_to_what_is_seen(pixels):
    pixels.requires_grad_()
    augmented = augment(pixels, SEEDS, blur_sigma=1.0)
    (gradient,) = torch.autograd.grad(augmented.square().sum(), pixels)
    assert (gradient.flatten(1).abs().sum(dim=1) > 0).all()


def test_a_blurred_point_falls_to_a_half_at_one_sigma():
    point = torch.zeros(1, 1, 31, 31)
    point[:, :, 15, 15] = 1.0
    spread = blur(point, 4.0)[0, 0]
    assert spread[15, 19] / spread[15, 15] == pytest.approx(0.5)
    assert spread[11, 15] / spread[15, 15] == pytest.approx(0.5)
    assert spread[15, 15 + 12] > 0
    assert spread[15, 15 + 13] == 0  # three sigmas
    assert spread.sum() == pytest.approx(1)


def test_blurring_is_in_float32_under_autocast(pixels):
    with torch.autocast("cpu", torch.bfloat16):
        mixed = augment(pixels, SEEDS, blur_sigma=2.0)
    assert torch.equal(mixed, augment(pixels, SEEDS, blur_sigma=2.0))


def test_the_blur_fades_over_twice_the_warm_up():
    strongest = math.sqrt(256 / 2)
    assert fading_sigma(256, 0, warmup_steps=100) == strongest
    assert fading_sigma(256, 100, warmup_steps=100) == pytest.approx(strongest / 2)
    assert fading_sigma(256, 200, warmup_steps=100) == 0
    assert fading_sigma(256, 300, warmup_steps=100) == 0
    assert fading_sigma(256, 0, warmup_steps=0) == 0


def test_a_window_is_cut_from_each_picture_at_its_own_place():
    pictures = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    part = window(pictures, (2, 3), top=torch.tensor([0, 2]), left=torch.tensor([2, 1]))
    assert torch.equal(part[0], pictures[0, :, 0:2, 2:5])
    assert torch.equal(part[1], pictures[1, :, 2:4, 1:4])
