"""DiffAugment: what a discriminator sees is moved, recoloured and cut, so that it cannot memorise.

Paper: arXiv 2006.10738. Every random choice comes from the sample's own seed, and gradients pass
through. While the discriminator is young, everything is blurred as well.

Shapes: B samples, H x W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from train.sample_seeds import derive, integers, uniform

TRANSLATION = 1 / 8  # of the side
CUTOUT = 0.2  # of the side
BRIGHTNESS = (-0.5, 0.5)  # added; pixels span 2
SATURATION = (0.0, 2.0)  # factors of the distance from the mean
CONTRAST = (0.5, 1.5)
BLUR_RADIUS = 3  # sigmas


def augment(
    pixels: Tensor,
    seeds: Tensor,
    *,
    translation: float = TRANSLATION,
    cutout: float = CUTOUT,
    blur_sigma: float = 0.0,
) -> Tensor:
    """Augmented pixels (B, 3, H, W) float32, of those in [-1, 1].

    `seeds` are the samples' own, (B,) int64 on the same device; `translation` and `cutout` are
    shares of the sides. A picture is moved first, over mid grey,
    then its colours change; what is cut out last is mid grey again. Values may leave [-1, 1].
    """
    pixels = blur(pixels, blur_sigma) if blur_sigma > 0 else pixels.float()
    pixels = _translate(pixels, derive(seeds, "translation"), translation)
    pixels = _recolour(pixels, derive(seeds, "colour"))
    return _cut_out(pixels, derive(seeds, "cutout"), cutout)


def fading_sigma(height: int, step: int, *, warmup_steps: int) -> float:
    """Blur at a discriminator's `step` (0 at its start): strongest first, none after 2 warm-ups."""
    fade = max(0.0, 1 - step / (2 * warmup_steps)) if warmup_steps else 0.0
    return math.sqrt(height / 2) * fade


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Pixels (B, 3, H, W) weighted by 2^-(distance / sigma)^2; beyond the edge is mid grey."""
    radius = math.floor(BLUR_RADIUS * sigma)
    distance = torch.arange(-radius, radius + 1, device=pixels.device, dtype=torch.float32)
    kernel = torch.exp2(-((distance / sigma) ** 2))
    groups = pixels.shape[1]
    kernel = (kernel / kernel.sum()).expand(groups, 1, 1, -1)
    with torch.autocast(pixels.device.type, enabled=False):
        across = F.conv2d(pixels.float(), kernel, padding=(0, radius), groups=groups)
        return F.conv2d(across, kernel.transpose(2, 3), padding=(radius, 0), groups=groups)


def window(pixels: Tensor, size: tuple[int, int], *, top: Tensor, left: Tensor) -> Tensor:
    """A part of each picture (B, C, H, W), `size` (h, w) large, that begins at its top and left.

    `top` and `left` are (B,) int64, at most H - h and W - w.
    """
    num_channels, width = pixels.shape[1], pixels.shape[3]
    rows = top[:, None] + torch.arange(size[0], device=pixels.device)
    columns = left[:, None] + torch.arange(size[1], device=pixels.device)
    part = pixels.gather(2, rows[:, None, :, None].expand(-1, num_channels, -1, width))
    return part.gather(3, columns[:, None, None, :].expand(-1, num_channels, size[0], -1))


def _translate(pixels: Tensor, seeds: Tensor, share: float) -> Tensor:
    height, width = pixels.shape[-2:]
    reach = (round(height * share), round(width * share))
    top, left = integers(seeds, (2 * reach[0] + 1, 2 * reach[1] + 1)).unbind(1)
    padded = F.pad(pixels, (reach[1], reach[1], reach[0], reach[0]))
    return window(padded, (height, width), top=top, left=left)


def _recolour(pixels: Tensor, seeds: Tensor) -> Tensor:
    """Another brightness, saturation and contrast, in the paper's order."""
    shares = uniform(seeds, (3,))[..., None, None, None]
    brightness, saturation, contrast = shares.unbind(1)
    pixels = pixels + _between(*BRIGHTNESS, share=brightness)
    pixels = _stretch(pixels, (1,), _between(*SATURATION, share=saturation))
    return _stretch(pixels, (1, 2, 3), _between(*CONTRAST, share=contrast))


def _between(low: float, high: float, *, share: Tensor) -> Tensor:
    return low + (high - low) * share


def _stretch(pixels: Tensor, dims: tuple[int, ...], factors: Tensor) -> Tensor:
    """Move values away from their mean over `dims`, or towards it."""
    mean = pixels.mean(dim=dims, keepdim=True)
    return mean + (pixels - mean) * factors


def _cut_out(pixels: Tensor, seeds: Tensor, share: float) -> Tensor:
    """Grey out a rectangle, whose centre lies in the picture but which may reach over its edge."""
    sides = pixels.shape[-2:]
    lengths = [round(side * share) for side in sides]
    # An even length has no middle pixel: one more place, so that both edges are reached alike.
    bounds = [side + 1 - length % 2 for side, length in zip(sides, lengths, strict=True)]
    centres = integers(seeds, bounds)
    inside = []
    for side, length, centre in zip(sides, lengths, centres.unbind(1), strict=True):
        begin = centre[:, None] - length // 2
        place = torch.arange(side, device=pixels.device)
        inside.append((place >= begin) & (place < begin + length))
    is_cut = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return pixels.masked_fill(is_cut, 0.0)
