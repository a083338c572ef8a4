"""SSIM against the paper's formula computed with SciPy."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from eval.ssim import SIGMA, WINDOW, ssim


def reference_ssim(first: np.ndarray, second: np.ndarray) -> float:
    """Of two channels (H, W) in 0..255, in float64: equation 13 of the paper, averaged."""
    edge = WINDOW // 2

    def blur(values: np.ndarray) -> np.ndarray:
        blurred = gaussian_filter(values, SIGMA, truncate=edge / SIGMA, mode="constant")
        return blurred[edge:-edge, edge:-edge]

    x, y = first.astype(np.float64), second.astype(np.float64)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = blur(x), blur(y)
    variances = blur(x * x) - mean_x**2 + blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    ratio = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float((ratio / ((mean_x**2 + mean_y**2 + c1) * (variances + c2))).mean())


def as_pixels(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).float() / 127.5 - 1


def test_the_value_is_that_of_the_paper_s_formula():
    random = np.random.default_rng(0)
    smooth = np.add.outer(np.arange(40), np.arange(52))[None, None] * 2 + np.zeros((3, 3, 1, 1))
    noise = random.integers(0, 90, (3, 3, 40, 52))
    first, second = smooth.astype(int), (smooth + noise * np.array([0, 1, 2])[:, None, None, None])
    second = np.clip(second, 0, 255).astype(int)
    values = ssim(as_pixels(first), as_pixels(second))
    for value, x_CHW, y_CHW in zip(values.tolist(), first, second, strict=True):
        expected = np.mean([reference_ssim(*channels) for channels in zip(x_CHW, y_CHW)])  # noqa: B905
        assert value == pytest.approx(expected, abs=2e-5)  # measured 3e-6, float32
    assert values[0] == 1
    assert values[0] > values[1] > values[2]


def test_the_negative_of_a_picture_is_less_like_it_than_nothing():
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    assert (ssim(pixels, -pixels) < 0).all()


def test_pictures_of_two_shapes_or_below_the_window_are_refused():
    pixels = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"of one shape, got \(1, 3, 16, 16\) and \(1, 3, 16, 12"):
        ssim(pixels, pixels[..., :12])
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 10 x 16"):
        ssim(pixels[..., :10, :], pixels[..., :10, :])
