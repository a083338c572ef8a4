import pytest
from PIL import Image

from mllm.pictures import (
    drawing_paths,
    make_grid,
    open_picture,
    read_notes,
    save_drawings,
    save_png,
)

COLORS = ("red", "lime", "blue", "black", "yellow")


def squares(number):
    return [Image.new("RGB", (16, 16), color) for color in COLORS[:number]]


def test_notes_come_back_from_the_png(tmp_path):
    notes = {"prompt": "ein gr\u00fcner Stern \u2605\nzweite Zeile", "seed": 7, "top_k": None}
    save_png(squares(1)[0], tmp_path / "a.png", notes=notes)
    assert read_notes(tmp_path / "a.png") == {key: str(value) for key, value in notes.items()}


def test_a_grid_shows_the_pictures_row_by_row_with_gaps():
    grid = make_grid(squares(5))
    assert grid.size == (3 * 20 - 4, 2 * 20 - 4)
    assert grid.getpixel((8, 8)) == (255, 0, 0)
    assert grid.getpixel((48, 8)) == (0, 0, 255)
    assert grid.getpixel((8, 28)) == (0, 0, 0)
    assert grid.getpixel((17, 8)) == grid.getpixel((48, 28)) == (255, 255, 255)


def test_several_drawings_become_a_grid_and_files_with_their_own_seeds(tmp_path):
    paths = save_drawings(squares(3), tmp_path / "out.png", notes={"prompt": "a", "seed": 5})
    assert paths == drawing_paths(tmp_path / "out.png", 3)
    assert [path.name for path in paths] == ["out.png", "out-0.png", "out-1.png", "out-2.png"]
    assert [read_notes(path)["seed"] for path in paths] == ["5", "5", "6", "7"]
    assert read_notes(paths[0])["num_images"] == "3"


def test_one_drawing_is_one_file(tmp_path):
    paths = save_drawings(squares(1), tmp_path / "out.png", notes={"seed": 5})
    assert paths == [tmp_path / "out.png"]
    assert Image.open(paths[0]).size == (16, 16)


def test_pictures_in_memory_are_laid_over_white():
    picture = open_picture(Image.new("RGBA", (2, 2), (255, 0, 0, 0)))
    assert picture.mode == "RGB"
    assert picture.getpixel((0, 0)) == (255, 255, 255)


def test_example_pictures_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("mllm.pictures.EXAMPLES_FOLDER", tmp_path)
    save_png(squares(1)[0], tmp_path / "star.png")
    assert open_picture("example:star").size == (16, 16)
    with pytest.raises(FileNotFoundError, match="'moon'; choose one of example:star"):
        open_picture("example:moon")
    with pytest.raises(FileNotFoundError, match="no example picture"):
        open_picture("example:../star")
