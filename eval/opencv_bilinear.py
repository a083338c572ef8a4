"""OpenCV's bilinear resize of bytes, bit for bit, without OpenCV.

No antialiasing, and integer arithmetic: a weight has 11 bits, and some bits are dropped between
the two axes. PIL and torch differ from it by a grey level on a tenth to a quarter of the values
when they enlarge, and by a lot when they shrink, which moves the scores of a detector.
"""

import numpy as np

WEIGHT_SCALE = 2048


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bytes (h, w, channels) -> bytes (height, width, channels), `size` being (height, width)."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or 0 in pixels.shape or min(size) < 1:
        raise ValueError(
            f"resize needs bytes (h, w, channels) and a size of at least one pixel, got "
            f"{pixels.dtype} of {pixels.shape} and size {size}"
        )
    upper, lower = _row_sums(pixels, size)
    return ((upper + lower + 2) >> 2).astype(np.uint8)


def _row_sums(pixels: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The weighted upper and lower row of every output row, in quarters of a grey level."""
    height, width = pixels.shape[:2]
    left, weights = _axis(width, size[1], keep_edge_weight=False)
    right = np.minimum(left + 1, width - 1)
    source = pixels.astype(np.int32)
    near, far = weights[:, :, None]
    rows = (source[:, left] * near + source[:, right] * far) >> 4
    top, weights = _axis(height, size[0], keep_edge_weight=True)
    upper, lower = (rows[np.clip(index, 0, height - 1)] for index in (top, top + 1))
    near, far = weights[:, :, None, None]
    return (upper * near) >> 16, (lower * far) >> 16


def _axis(source: int, target: int, *, keep_edge_weight: bool) -> tuple[np.ndarray, np.ndarray]:
    """First source index of every target index, and the weights (2, target) of it and the next.

    Beyond the first and the last pixel OpenCV moves columns onto it, with all the weight; rows
    keep index and weights, and their indices are clamped when they are read.
    """
    position = ((np.arange(target) + 0.5) * (source / target) - 0.5).astype(np.float32)
    index = np.floor(position).astype(np.int64)
    share = position - index.astype(np.float32)
    if not keep_edge_weight:
        share[(index < 0) | (index >= source - 1)] = 0
        index = np.clip(index, 0, source - 1)
    weights = np.stack([np.float32(1) - share, share]) * np.float32(WEIGHT_SCALE)
    return index, np.rint(weights).astype(np.int32)  # half to even
