"""Reading images of every kind, fitting them, and the way back."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from unitok.image import RECIPES, ImageRecipe, load_image, preprocess, psnr, to_pil

RED, WHITE = (255, 0, 0), (255, 255, 255)
MODES = {
    "PNG": "RGB L 1 P RGBA LA",
    "JPEG": "RGB L 1 CMYK YCbCr",
    "WEBP": "RGB L 1 P CMYK YCbCr RGBA LA",
    "GIF": "RGB L 1 P RGBA LA",
    "BMP": "RGB L 1 P RGBA",
    "TIFF": "RGB L 1 P CMYK RGBA LA",
}


def picture(width=40, height=30):
    """A smooth picture in RGB, so that lossy formats change it little."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def png(size, depth, color_type, rows, *, key=b""):
    """A PNG file by hand: Pillow writes no 16-bit colour. `key` is the transparent colour."""

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", *size, depth, color_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + (chunk(b"tRNS", key) if key else b"")
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def pixels_of(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [(file_format, mode) for file_format, modes in MODES.items() for mode in modes.split()],
)
def test_every_mode_of_every_format_becomes_rgb(file_format, mode, tmp_path):
    image = picture().convert(mode)
    path = tmp_path / "image"
    # Lossy WebP smears the dither of palettes; JPEG has no lossless form.
    image.save(path, file_format, lossless=True)
    loaded = load_image(path)
    assert (loaded.mode, loaded.size) == ("RGB", image.size)
    # Measured: 6.7 at most, by the palette of GIF; JPEG 4.2 at most; the others are exact.
    difference = np.abs(pixels_of(loaded) - pixels_of(image.convert("RGB")))
    assert difference.mean() < 8


def test_paths_bytes_and_open_files_give_the_same_picture(tmp_path):
    path = tmp_path / "a.png"
    picture().save(path)
    with path.open("rb") as file:
        results = [load_image(s) for s in (str(path), path, path.read_bytes(), file)]
    assert all(np.array_equal(pixels_of(r), pixels_of(picture())) for r in results)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, file_format):
    stored = picture()
    exif = Image.Exif()
    exif[0x0112] = orientation
    turns = Image.Transpose
    undo = [None, turns.FLIP_LEFT_RIGHT, turns.ROTATE_180, turns.FLIP_TOP_BOTTOM]
    undo += [turns.TRANSPOSE, turns.ROTATE_270, turns.TRANSVERSE, turns.ROTATE_90]
    turn = undo[orientation - 1]
    expected = stored if turn is None else stored.transpose(turn)
    loaded = load_image(encoded(stored, file_format, exif=exif))
    assert loaded.size == expected.size
    # Measured: 2.5 at most (lossy WebP); a wrong turn gives more than 40.
    assert np.abs(pixels_of(loaded) - pixels_of(expected)).mean() < 8


def test_transparency_is_laid_over_the_background():
    image = Image.new("RGBA", (2, 1), (*RED, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    data = encoded(image, "PNG")
    assert load_image(data).getpixel((0, 0)) == WHITE
    assert load_image(data, background=(0, 255, 0)).getpixel((0, 0)) == (0, 255, 0)
    assert load_image(data).getpixel((1, 0)) == (127, 127, 127)


def test_grey_with_alpha_is_laid_over_the_background():
    assert load_image(encoded(Image.new("LA", (1, 1), (0, 0)), "PNG")).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("file_format", ["PNG", "GIF"])
def test_a_transparent_palette_entry_shows_the_background(file_format):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    loaded = load_image(encoded(image, file_format, transparency=0))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 255)]


def test_a_transparent_key_colour_shows_the_background():
    image = Image.new("RGB", (2, 1), RED)
    image.putpixel((1, 0), (0, 0, 255))
    loaded = load_image(encoded(image, "PNG", transparency=RED))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 255)]


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_to_eight(file_format):
    levels = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    loaded = load_image(encoded(Image.fromarray(levels), file_format))
    assert pixels_of(loaded)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_a_transparent_level_of_sixteen_bit_grey_shows_the_background():
    data = png((2, 1), 16, 0, b"\0" + struct.pack(">2H", 1000, 1001), key=struct.pack(">H", 1000))
    assert pixels_of(load_image(data))[0, :, 0].tolist() == [255, 4]


def test_sixteen_bit_colour_is_scaled_to_eight():
    data = png((1, 1), 16, 2, b"\0" + struct.pack(">3H", 0, 32768, 65535))
    assert load_image(data).getpixel((0, 0)) == (0, 128, 255)


def test_a_transparent_key_of_sixteen_bit_colour_shows_the_background():
    colour = struct.pack(">3H", 65535, 0, 300)
    assert load_image(png((1, 1), 16, 2, b"\0" + colour, key=colour)).getpixel((0, 0)) == WHITE


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_the_first_frame_of_an_animation_is_taken(file_format):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, (0, 0, 255))]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    # Lossy WebP moves pure red by one level.
    assert np.abs(pixels_of(load_image(data)) - RED).max() <= 2


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_fixed_white_are_refused(mode):
    with pytest.raises(ValueError, match=rf"mode {mode}\) have no fixed white; save it with 8"):
        load_image(encoded(Image.new(mode, (2, 2)), "TIFF"))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_refused_by_name(file_format, tmp_path):
    path = tmp_path / "half.image"
    whole = encoded(picture(), file_format)
    for share in (0.2, 0.5, 0.8):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(ValueError, match=r"image .*half\.image"):
            load_image(path)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_bytes_never_raise_anything_but_a_sentence(file_format):
    whole = encoded(picture(), file_format)
    rng = np.random.default_rng(0)

    def outcome(data):
        try:
            return load_image(data).mode
        except ValueError as error:
            return str(error)

    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(len(whole), size=3):
            damaged[position] = rng.integers(256)
        result = outcome(bytes(damaged))
        assert result == "RGB" or "the given bytes" in result


def test_what_is_no_image_is_refused_by_name(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"no image can be read from .*notes\.png; convert it"):
        load_image(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"notes\.png is empty \(0 bytes\)"):
        load_image(path)
    with pytest.raises(ValueError, match="the image is empty"):
        load_image(b"")


def test_formats_that_start_other_programs_are_not_read():
    with pytest.raises(ValueError, match="no image can be read from the given bytes"):
        load_image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_folders_missing_files_and_pipes_are_named(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name one image file"):
        load_image(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no image file at .*nowhere"):
        load_image(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe is not a regular file"):
        load_image(tmp_path / "pipe")


@pytest.mark.filterwarnings("ignore:Image size")
def test_too_many_pixels_are_refused_from_the_header():
    # The pixel data is missing: decoding it would fail with another message.
    with pytest.raises(ValueError, match="has 9000x10000 pixels, expected 1 to 89478485 in all"):
        load_image(png((9000, 10000), 8, 2, b""))
    with pytest.raises(ValueError, match="exceeds limit"):
        load_image(png((60000, 60000), 8, 2, b""))
    with pytest.raises(ValueError, match="has 40x30 pixels, expected 1 to 1199 in all"):
        load_image(encoded(picture(), "PNG"), max_pixels=1199)


def test_a_picture_without_pixels_is_refused():
    with pytest.raises(ValueError, match="image"):
        load_image(png((0, 1), 8, 2, b"\0"))


def as_pixels(image):
    return vision.to_dtype(vision.to_image(image), torch.float32, scale=True)[None] * 2 - 1


SIZES = [(40, 30), (30, 40), (64, 64), (301, 200), (77, 500), (65, 67), (67, 70)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("recipe", "shorter", "interpolation"),
    [
        ("reconstruction", 72, v2.InterpolationMode.BILINEAR),
        ("zero_shot", 64, v2.InterpolationMode.BICUBIC),
    ],
)
def test_crops_equal_those_of_torchvision(size, recipe, shorter, interpolation):
    official = v2.Compose([v2.Resize(shorter, interpolation), v2.CenterCrop(64)])
    ours = preprocess(picture(*size), recipe, image_size=64)
    # Measured: 1.2e-7, from dividing by 127.5 instead of 255.
    torch.testing.assert_close(ours, as_pixels(official(picture(*size))), atol=2e-7, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (65, 66), (67, 69), (200, 71)])
def test_rfid_cuts_out_the_centre_as_torchvision_does(size):
    ours = preprocess(picture(*size), "rfid", image_size=64)
    official = as_pixels(v2.CenterCrop(64)(picture(*size)))
    torch.testing.assert_close(ours, official, atol=2e-7, rtol=0)


def test_rfid_refuses_pictures_smaller_than_the_crop():
    with pytest.raises(ValueError, match=r"at least 64x64 to be cropped .*, got 200x60"):
        preprocess(picture(200, 60), "rfid", image_size=64)


def test_chat_pads_to_a_square_without_cutting():
    pixels = preprocess(Image.new("RGB", (64, 32), RED), "chat", image_size=64)
    levels = ((pixels[0, :, :, 32] + 1) * 127.5).round().T.tolist()
    assert levels[0] == levels[-1] == [122, 116, 104]
    assert levels[32] == [*RED]
    assert sum(level == [*RED] for level in levels) == 32


def test_stretch_ignores_the_aspect():
    pixels = preprocess(picture(80, 20), ImageRecipe("stretch"), image_size=32)
    assert pixels.shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((40, 30), (32, 48)),
        ((23, 25), (32, 16)),
        ((2048, 1000), (496, 1024)),
        ((5000, 1), (16, 1024)),
        ((3, 3), (16, 16)),
    ],
)
def test_native_keeps_the_aspect_in_whole_patches(size, shape):
    assert preprocess(Image.new("RGB", size), "native").shape == (1, 3, *shape)


def test_elongated_pictures_are_refused_before_they_fill_the_memory():
    ribbon = Image.new("RGB", (1_000_000, 1))
    for recipe in ("chat", "reconstruction"):
        with pytest.raises(ValueError, match=r"too elongated \(1000000x1 pixels\)"):
            preprocess(ribbon, recipe)


def test_other_modes_are_converted_before_fitting():
    assert preprocess(Image.new("LA", (8, 8), (0, 0)), "chat", image_size=16).min() == 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_pixels_are_floats_from_minus_one_to_one(recipe):
    pixels = preprocess(picture(300, 280), recipe)
    assert pixels.dtype == torch.float32
    assert -1 <= pixels.min() < -0.8
    assert 0.8 < pixels.max() <= 1


def test_wrong_recipes_and_sizes_are_refused():
    with pytest.raises(ValueError, match="no recipe is called 'chatt'; choose one of reconstruct"):
        preprocess(picture(), "chatt")
    with pytest.raises(ValueError, match="multiple of 16, got 250"):
        preprocess(picture(), image_size=250)
    with pytest.raises(ValueError, match="fit must be one of crop, pad, stretch, native, got 'p'"):
        ImageRecipe("p")
    with pytest.raises(ValueError, match="max_side must be at least 16, got 8"):
        ImageRecipe("native", max_side=8)
    with pytest.raises(ValueError, match=r"resize_ratio must be at least 1, got 0\.5"):
        ImageRecipe("crop", resize_ratio=0.5)


def test_every_level_survives_the_way_to_pixels_and_back():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    (back,) = to_pil(preprocess(Image.fromarray(levels), "rfid", image_size=16))
    assert np.array_equal(np.asarray(back), levels)


def test_pixels_are_clamped_and_rounded_or_truncated():
    pixels = torch.tensor([-2.0, 0.0, 0.004, 3.0]).expand(2, 3, 1, 4)
    rounded, truncated = to_pil(pixels), to_pil(pixels, rounding="truncate")
    assert len(rounded) == 2
    assert pixels_of(rounded[1])[0, :, 0].tolist() == [0, 128, 128, 255]
    assert pixels_of(truncated[0])[0, :, 0].tolist() == [0, 127, 128, 255]


def test_pictures_are_made_from_half_precision_too():
    assert to_pil(torch.ones(1, 3, 2, 2, dtype=torch.bfloat16))[0].getpixel((0, 0)) == WHITE


def test_wrong_pixels_are_refused():
    with pytest.raises(ValueError, match=r"pixels must be floats \(B, 3, H, W\).*\(3, 4, 4\)"):
        to_pil(torch.zeros(3, 4, 4))
    with pytest.raises(ValueError, match=r"got torch\.uint8"):
        to_pil(torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="got NaN"):
        to_pil(torch.full((1, 3, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="rounding must be round or truncate, got 'up'"):
        to_pil(torch.zeros(1, 3, 2, 2), rounding="up")


def test_psnr_is_given_per_picture_over_a_range_of_two():
    first = torch.zeros(2, 3, 4, 4)
    second = torch.stack([torch.zeros(3, 4, 4), torch.full((3, 4, 4), 0.2)])
    # 10 log10(4 / 0.04) = 20 dB
    torch.testing.assert_close(psnr(first, second), torch.tensor([torch.inf, 20.0]))
    with pytest.raises(ValueError, match="pixels of one shape"):
        psnr(first, first[:1])
