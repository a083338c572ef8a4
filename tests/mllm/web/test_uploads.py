"""Pictures that come from a browser."""

import base64
import io

import pytest
from PIL import Image

from mllm.web.uploads import MAX_FILE_BYTES, read_upload


def data_url(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def png(size: tuple[int, int] = (5, 3)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, format="PNG")
    return buffer.getvalue()


def test_the_bytes_of_a_file_become_a_picture():
    picture = read_upload(data_url(png()))
    assert (picture.size, picture.getpixel((0, 0))) == ((5, 3), (255, 0, 0))


@pytest.mark.parametrize(
    "source", ["/etc/passwd", "file:///etc/passwd", "http://example.com/a.png", None, {"path": "x"}]
)
def test_neither_paths_nor_addresses_are_taken(source):
    with pytest.raises(ValueError, match="must come as a file"):
        read_upload(source)


def test_what_is_no_picture_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^This file cannot be shown: no image can be read .*\.$"):
        read_upload(data_url(b"hello"))


def test_a_damaged_data_url_is_refused():
    with pytest.raises(ValueError, match="arrived damaged"):
        read_upload("data:image/png;base64,@@@")


def test_a_file_that_is_too_large_is_refused_by_its_size_alone():
    with pytest.raises(ValueError, match=r"The file has 20\.0 MB; .* at most 10 MB"):
        read_upload(None, num_bytes=2 * MAX_FILE_BYTES)


def test_more_bytes_than_announced_are_refused_too():
    with pytest.raises(ValueError, match="at most 10 MB"):
        read_upload(data_url(bytes(MAX_FILE_BYTES + 1)), num_bytes=5)


def test_more_pixels_than_a_camera_makes_are_refused_before_they_are_decoded():
    with pytest.raises(ValueError, match="10000x10000 pixels"):
        read_upload(data_url(png((10000, 10000))))
