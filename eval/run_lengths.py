"""Masks as COCO's uncompressed run lengths, which are short and readable in JSON.

The pixels are taken column by column, and the counts alternate: zeros first, then ones.
"""

from typing import Any

import numpy as np


def encode_mask(mask: np.ndarray) -> dict[str, list[int]]:
    """A mask (h, w) of bools as its size [h, w] and its counts."""
    if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.size:
        raise ValueError(f"a mask must be bool of (h, w), got {mask.dtype} of {mask.shape}")
    # A zero before the first pixel, so that the first run is one of zeros, if an empty one.
    pixels = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(np.concatenate([[0], starts, [mask.size]]))
    return {"size": list(mask.shape), "counts": counts.tolist()}


def decode_mask(runs: Any) -> np.ndarray:
    """The mask (h, w) of bools; ValueError for counts that do not fill it."""
    match runs:
        case {"size": [int(height), int(width)], "counts": [*counts]} if min(height, width) > 0:
            is_whole = all(type(count) is int and count >= 0 for count in counts)
            if is_whole and sum(counts) == height * width:
                pixels = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
                return pixels.reshape((height, width), order="F")
    raise ValueError(
        "a mask must have a size [h, w] and a list of counts that add up to h * w (COCO's "
        f"uncompressed run lengths), got {str(runs)[:80]}"
    )
