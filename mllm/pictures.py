"""Picture files on their way in and out: named examples, grids of drawings, notes in a PNG."""

import io
import math
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

import unitok
from unitok.files import atomic_write, check_output
from unitok.image import load_image, preprocess, to_rgb

EXAMPLE_PREFIX = "example:"
EXAMPLES_FOLDER = Path(unitok.__file__).parent / "nano" / "examples"
GRID_GAP = 4  # pixels between pictures
GRID_COLOR = (255, 255, 255)

Picture: TypeAlias = str | PathLike[str] | Image.Image


def open_picture(source: Picture) -> Image.Image:
    """An RGB picture from a file, from `example:NAME`, or from a picture in memory."""
    if isinstance(source, Image.Image):
        return to_rgb(source)
    if isinstance(source, str) and source.startswith(EXAMPLE_PREFIX):
        return load_image(example_path(source.removeprefix(EXAMPLE_PREFIX)))
    return load_image(source)


def read_pixels(source: Picture, recipe: str, *, image_size: int) -> tuple[Image.Image, Tensor]:
    """A picture, and its pixels (1, 3, H, W) as a model takes them; errors name the file."""
    picture = open_picture(source)
    try:
        return picture, preprocess(picture, recipe, image_size=image_size)
    except ValueError as error:
        name = "the picture" if isinstance(source, Image.Image) else source
        raise ValueError(f"cannot use {name}: {error}") from error


def example_names() -> list[str]:
    """The pictures that ship with the package."""
    return sorted(path.stem for path in EXAMPLES_FOLDER.glob("*.png"))


def example_path(name: str) -> Path:
    if name not in example_names():
        choices = ", ".join(f"{EXAMPLE_PREFIX}{each}" for each in example_names())
        raise FileNotFoundError(f"no example picture is called {name!r}; choose one of {choices}")
    return EXAMPLES_FOLDER / f"{name}.png"


def make_grid(pictures: Sequence[Image.Image], *, columns: int | None = None) -> Image.Image:
    """Pictures of one size in rows on white; without `columns`, as square as possible."""
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    width, height = pictures[0].size
    size = (columns * (width + GRID_GAP) - GRID_GAP, rows * (height + GRID_GAP) - GRID_GAP)
    grid = Image.new("RGB", size, GRID_COLOR)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        grid.paste(picture, (column * (width + GRID_GAP), row * (height + GRID_GAP)))
    return grid


def check_png(path: str | PathLike[str], *, force: bool = False) -> Path:
    """`path`, if a PNG may be written there; meant to be called before a long computation."""
    if Path(path).suffix.lower() != ".png":
        raise ValueError(f"the output must end in .png, got {path}; only PNG keeps the notes")
    return check_output(path, force=force)


def encode_png(picture: Image.Image, *, notes: Mapping[str, object] | None = None) -> bytes:
    """A PNG file's bytes; `notes` become its text chunks, which `read_notes` gives back."""
    info = PngInfo()
    for key, value in (notes or {}).items():
        info.add_itxt(key, str(value))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(
    picture: Image.Image,
    path: str | PathLike[str],
    *,
    notes: Mapping[str, object] | None = None,
) -> None:
    """Write a PNG with its `notes` in one step."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(encode_png(picture, notes=notes))


def read_notes(path: str | PathLike[str]) -> dict[str, str]:
    """The text chunks of a PNG."""
    with Image.open(path, formats=["PNG"]) as image:
        image.load()  # chunks may stand behind the pixels
        return {str(key): str(each) for key, each in image.info.items() if isinstance(each, str)}


def drawing_paths(path: str | PathLike[str], num_images: int) -> list[Path]:
    """Where `num_images` drawings for `path` go: the path itself, or a grid there and
    NAME-0.png, NAME-1.png, ... beside it."""
    grid = Path(path)
    if num_images == 1:
        return [grid]
    return [grid, *(grid.with_stem(f"{grid.stem}-{number}") for number in range(num_images))]


def save_drawings(
    pictures: Sequence[Image.Image], path: str | PathLike[str], *, notes: Mapping[str, object]
) -> list[Path]:
    """Write drawings of one prompt to `drawing_paths`; each single one notes its own seed."""
    paths = drawing_paths(path, len(pictures))
    seed = int(str(notes["seed"]))
    if len(pictures) == 1:
        save_png(pictures[0], paths[0], notes=notes)
        return paths
    save_png(make_grid(pictures), paths[0], notes={**notes, "num_images": len(pictures)})
    for number, (picture, single) in enumerate(zip(pictures, paths[1:], strict=True)):
        save_png(picture, single, notes={**notes, "seed": seed + number})
    return paths
