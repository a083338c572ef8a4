"""The resize of bytes against what OpenCV gives."""

import hashlib

import numpy as np
import pytest

from eval.opencv_bilinear import resize


def draw_formula(height, width):
    y, x = np.mgrid[:height, :width]
    channels = [7 * x + 3 * y, 5 * x + 11 * y, x + 13 * y]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


# How the SHA-256 of cv2.resize(..., INTER_LINEAR) of OpenCV 5.0.0 begins.
@pytest.mark.parametrize(
    ("source", "target", "digest"),
    [
        ((48, 64), (75, 100), "9a010e2913ec22d3"),
        ((100, 80), (63, 50), "4fd1f924912721c7"),
        ((64, 64), (32, 32), "5b713b2ead2ec84e"),
        ((40, 9), (133, 30), "fa74b007764a66b3"),
        ((1, 1), (5, 7), "523c41464ee47d61"),
        ((37, 53), (37, 53), "f00a722e11513021"),
        ((96, 128), (800, 1067), "b922f9a892dcec77"),
        ((256, 256), (200, 200), "aa3a4cd36b5af0d1"),
    ],
)
def test_resizing_gives_the_bytes_of_opencv(source, target, digest):
    resized = resize(draw_formula(*source), target)
    assert resized.shape == (*target, 3)
    assert hashlib.sha256(resized.tobytes()).hexdigest()[:16] == digest


def test_an_image_of_the_right_size_stays_as_it_is():
    pixels = draw_formula(20, 31)
    assert np.array_equal(resize(pixels, (20, 31)), pixels)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
@pytest.mark.parametrize("size", [(7, 90), (40, 3)])
def test_an_even_grey_stays_even(level, size):
    pixels = np.full((20, 30, 3), level, dtype=np.uint8)
    assert (resize(pixels, size) == level).all()


@pytest.mark.parametrize(
    ("pixels", "size"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), (2, 2)),
        (np.zeros((4, 4), dtype=np.uint8), (2, 2)),
        (np.zeros((4, 4, 3), dtype=np.uint8), (0, 2)),
    ],
)
def test_anything_but_bytes_with_channels_is_refused(pixels, size):
    with pytest.raises(ValueError, match=r"needs bytes \(h, w, channels\)"):
        resize(pixels, size)
