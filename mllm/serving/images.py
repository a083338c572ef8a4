"""Pictures on their way in and out: data URLs, with limits that are checked before decoding."""

import base64
import binascii
import io
import re

from PIL import Image

from mllm.serving.options import Limits
from unitok.image import RECIPES, load_image, preprocess, to_pil

DATA_URL = re.compile(r"data:image/(?:png|jpeg|jpg|webp|gif|bmp|tiff);base64,", re.IGNORECASE)
# Their result, fitted again, stays as it is.
LASTING_FITS = ("pad", "stretch")


def read_data_url(url: str, limits: Limits) -> Image.Image:
    """The picture in a data URL."""
    head = DATA_URL.match(url)
    if head is None:
        raise ValueError(
            f"a picture must be a data URL such as data:image/png;base64,..., got {url[:40]!r}"
        )
    encoded = url[head.end() :]
    check_size(len(encoded) * 3 // 4, limits)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a picture's data URL is no valid base64: {error}") from error
    return read_picture(data, limits)


def read_picture(data: bytes, limits: Limits) -> Image.Image:
    """The picture in a file's bytes."""
    check_size(len(data), limits)
    return load_image(data, max_pixels=limits.image_pixels)


def check_size(num_bytes: int, limits: Limits) -> None:
    if num_bytes > limits.image_bytes:
        raise ValueError(
            f"a picture may be {limits.image_bytes} bytes long, got {num_bytes}; make it smaller"
        )


def shrink(picture: Image.Image, recipe: str, *, image_size: int) -> Image.Image:
    """What the model will see of a picture, if it sees the same of that.

    So a request that waits holds a small picture.
    """
    if RECIPES[recipe].fit not in LASTING_FITS:
        return picture
    return to_pil(preprocess(picture, recipe, image_size=image_size))[0]


def encode_png(picture: Image.Image) -> str:
    """A picture as PNG in base64."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()


def as_data_url(picture: Image.Image) -> str:
    return f"data:image/png;base64,{encode_png(picture)}"
