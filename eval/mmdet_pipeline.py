"""What mmdet does around its Mask2Former: picture -> network input, logits -> instances.

Shapes: Q queries, C classes, h x w mask logits, N instances, H x W original image.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from eval.opencv_bilinear import resize

IMAGE_SCALE = (1333, 800)  # limits of the long and the short side
PADDED_TO = 32  # the coarsest stride
PADDING = 128  # put there before normalising, so it is not zero after it
MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
MAX_DETECTIONS = 100

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """One image as the network takes it, and the sizes that lead back to it."""

    pixels: np.ndarray  # (1, 3, padded height, padded width) float32
    original_size: Size
    resized_size: Size

    @property
    def padded_size(self) -> Size:
        """What the network sees."""
        height, width = self.pixels.shape[2:]
        return height, width


@dataclass(frozen=True, eq=False)
class Instances:
    """The N best pairs of a query and a class, best class probability first."""

    queries: Tensor  # (N,) int64
    labels: Tensor  # (N,) int64
    scores: Tensor  # (N,) float32, 0..1
    boxes: Tensor  # (N, 4) float32: x1, y1, x2, y2, right and bottom exclusive; zeros if empty
    masks: Tensor  # (N, H, W) bool


def preprocess(image: Image.Image, scale: tuple[int, int] = IMAGE_SCALE) -> NetworkInput:
    """Turn upright, resize into `scale` (long side, short side), pad and normalise."""
    pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    original = pixels.shape[:2]
    factor = min(max(scale) / max(original), min(scale) / min(original))
    resized = int(original[0] * factor + 0.5), int(original[1] * factor + 0.5)
    if min(resized) < 1:
        raise ValueError(
            f"an image of {original[1]} x {original[0]} pixels is too narrow to be resized into "
            f"{max(scale)} x {min(scale)}; crop it first"
        )
    below, beside = (-side % PADDED_TO for side in resized)
    padded = np.pad(
        resize(pixels, resized), ((0, below), (0, beside), (0, 0)), constant_values=PADDING
    )
    # Dividing, not multiplying by a reciprocal: that is one unit in the last place off.
    normalized = (padded.astype(np.float32) - MEAN) / STD
    channels_first = np.ascontiguousarray(normalized.transpose(2, 0, 1)[None])
    return NetworkInput(channels_first, original, resized)


def postprocess(
    class_logits: Tensor,
    mask_logits: Tensor,
    *,
    padded_size: Size,
    resized_size: Size,
    original_size: Size,
    max_detections: int = MAX_DETECTIONS,
) -> Instances:
    """Instances from class logits (Q, C + 1), the last one "no object", and masks (Q, h, w).

    A query may yield several classes, and nothing is suppressed.
    """
    probabilities = class_logits.softmax(dim=-1)[:, :-1]
    num_classes = probabilities.shape[1]
    best, places = probabilities.flatten().topk(min(max_detections, probabilities.numel()))
    queries, labels = places // num_classes, places % num_classes
    kept, rows = queries.unique(return_inverse=True)
    height, width = resized_size
    padded = _interpolate(mask_logits[kept], padded_size)
    logits = _interpolate(padded[:, :height, :width], original_size)
    masks = logits > 0
    sums = (logits.sigmoid() * masks).flatten(1).sum(dim=1)
    certainty = sums / (masks.flatten(1).sum(dim=1) + 1e-6)
    return Instances(
        queries=queries,
        labels=labels,
        scores=best * certainty[rows],
        boxes=tight_boxes(masks)[rows],
        masks=masks[rows],
    )


def _interpolate(logits: Tensor, size: Size) -> Tensor:
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def tight_boxes(masks: Tensor) -> Tensor:
    """Boxes (N, 4) float32 around masks (N, H, W); an empty mask gives zeros."""
    edges = []
    for other_axis in (1, 2):  # without rows: columns, without columns: rows
        is_taken = masks.any(dim=other_axis).int()  # (N, W) or (N, H)
        first = is_taken.argmax(dim=1)
        end = is_taken.shape[1] - is_taken.flip(1).argmax(dim=1)
        edges.append((first, end))
    (left, right), (top, bottom) = edges
    boxes = torch.stack([left, top, right, bottom], dim=1).float()
    return boxes * masks.flatten(1).any(dim=1)[:, None]
