"""Structural similarity of two pictures (Wang et al., "Image quality assessment: from error
visibility to structural similarity", IEEE Transactions on Image Processing 13, 2004).

With the paper's own settings: means and variances under a Gaussian of 11 x 11 pixels, only where
all of it lies inside the picture, then the mean over places. Colours are compared channel by
channel, which the paper leaves open.

Shapes: B pictures of H x W pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03  # of the range of values, which keep both ratios finite


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """The similarity of each pair, (B,) in -1..1; both are pixels (B, 3, H, W) in [-1, 1]."""
    if first.shape != second.shape or first.ndim != 4:
        raise ValueError(
            "ssim compares pixels (B, 3, H, W) of one shape, got "
            f"{tuple(first.shape)} and {tuple(second.shape)}"
        )
    if min(first.shape[-2:]) < WINDOW:
        raise ValueError(
            f"ssim needs pictures of at least {WINDOW} x {WINDOW} pixels, got "
            f"{first.shape[-2]} x {first.shape[-1]}"
        )
    x, y = (first.float() + 1) / 2, (second.float() + 1) / 2
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x.square()
    variance_y = _blur(y * y) - mean_y.square()
    covariance = _blur(x * y) - mean_x * mean_y
    brightness = (2 * mean_x * mean_y + K1**2) / (mean_x.square() + mean_y.square() + K1**2)
    structure = (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)
    return (brightness * structure).flatten(1).mean(1)


def _blur(values: Tensor) -> Tensor:
    """Gaussian means, (B, 3, H, W) -> (B, 3, H - 10, W - 10); rows first, then columns."""
    offsets = torch.arange(WINDOW, device=values.device) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    kernel = (weights / weights.sum()).expand(values.shape[1], 1, 1, WINDOW)
    rows = F.conv2d(values, kernel, groups=values.shape[1])
    return F.conv2d(rows, kernel.mT, groups=values.shape[1])
