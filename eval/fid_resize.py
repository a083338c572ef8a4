"""How pictures become the 299 x 299 pixels that Inception sees; FIDs differ more by this than by
anything else.

`clean` is clean-fid's: antialiased bicubic, channel by channel in float32, clipped, not rounded.
`tensorflow` is what TensorFlow 1 and torch-fidelity do: bilinear between the two nearest pixels
above and left, whatever the reduction.

Pictures are uint8 (H, W, 3); results are float32 (299, 299, 3) in 0..255.
"""

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

INCEPTION_SIZE = 299

ResizeName: TypeAlias = Literal["clean", "tensorflow"]


def resize_clean(picture_HWC: NDArray) -> NDArray:
    """As clean-fid's mode `clean`."""
    size = (INCEPTION_SIZE, INCEPTION_SIZE)
    channels = [
        np.asarray(Image.fromarray(channel_HW).resize(size, Image.Resampling.BICUBIC))
        for channel_HW in np.moveaxis(picture_HWC.astype(np.float32), -1, 0)
    ]
    return np.stack(channels, axis=-1).clip(0, 255)


def resize_tensorflow(picture_HWC: NDArray) -> NDArray:
    """As TensorFlow 1 without aligned corners: output i lies at input i * n / 299."""
    rows_XWC = _interpolate(picture_HWC.astype(np.float32))
    return _interpolate(rows_XWC.swapaxes(0, 1)).swapaxes(0, 1)


def _interpolate(values_NXC: NDArray) -> NDArray:
    """Along the first axis."""
    length = len(values_NXC)
    # In float32, as there: a rounded position shifts a steep edge by 0.002 levels.
    positions = np.arange(INCEPTION_SIZE, dtype=np.float32) * np.float32(length / INCEPTION_SIZE)
    low = positions.astype(int)
    high = np.minimum(low + 1, length - 1)
    weights = (positions - low.astype(np.float32))[:, None, None]
    return values_NXC[low] + (values_NXC[high] - values_NXC[low]) * weights


RESIZES: dict[ResizeName, Callable[[NDArray], NDArray]] = {
    "clean": resize_clean,
    "tensorflow": resize_tensorflow,
}
