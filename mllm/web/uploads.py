"""What comes from a browser: pictures as the bytes of a file, never a path or an address; and
which of several things was clicked."""

import base64
import binascii

import gradio as gr
from PIL import Image

from unitok.image import load_image

MAX_FILE_BYTES = 10 * 2**20
MAX_UPLOAD_PIXELS = 40_000_000  # 0.12 GB decoded; above what most cameras make
DATA_URL_MARK = ";base64,"


def read_upload_event(event: gr.EventData) -> Image.Image:
    """The picture that the picker's event `upload` carries."""
    return read_upload(getattr(event, "picture", None), num_bytes=getattr(event, "size", 0))


def read_upload(data_url: object, *, num_bytes: object = 0) -> Image.Image:
    """The picture in a data URL; a browser that finds its file too large sends the size alone.

    Errors are one sentence that a person can act on.
    """
    _check_size(num_bytes)
    data = _decode(data_url)
    _check_size(len(data))
    try:
        return load_image(data, max_pixels=MAX_UPLOAD_PIXELS)
    except ValueError as error:
        raise ValueError(f"This file cannot be shown: {error}.") from error


def _check_size(num_bytes: object) -> None:
    if isinstance(num_bytes, int | float) and num_bytes > MAX_FILE_BYTES:
        raise ValueError(
            f"The file has {num_bytes / 2**20:.1f} MB; a picture may have at most "
            f"{MAX_FILE_BYTES // 2**20} MB, so make it smaller first."
        )


def _decode(data_url: object) -> bytes:
    head, mark, body = str(data_url).partition(DATA_URL_MARK)
    if not (isinstance(data_url, str) and head.startswith("data:") and mark):
        raise ValueError("A picture must come as a file; drop one here or choose one.")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise ValueError("The picture arrived damaged; drop the file again.") from error


def chosen_number(event: gr.EventData, count: int) -> int:
    """Which of `count` things a person clicked."""
    number = getattr(event, "number", None)
    if not isinstance(number, int) or not 0 <= number < count:
        raise gr.Error("This is not there any more; reload the page.", print_exception=False)
    return number
