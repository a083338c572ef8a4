"""Pictures from folders, arrays and tables: the same ones, in the same order, with their labels."""

import io

import datasets
import numpy as np
import pytest
from PIL import Image

from eval.picture_sources import PictureData, describe_source, open_source

PICTURES = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
LABELS = [0, 1, 1, 0, 2]


def png_bytes(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


def write_folder(folder):
    for number, array in enumerate(PICTURES):
        path = folder / f"n{LABELS[number]}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    return folder


def write_table(path):
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog", "fox"])
    )
    rows = {"image": [{"bytes": png_bytes(array)} for array in PICTURES], "label": LABELS}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    return path


def read_all(source):
    return np.stack([np.asarray(source.read(number)) for number in range(len(source.names))])


def test_a_folder_of_folders_has_their_order_as_labels(tmp_path):
    source = open_source(PictureData(str(write_folder(tmp_path))))
    assert source.names == ["n0/0", "n0/3", "n1/1", "n1/2", "n2/4"]
    assert source.class_names == ["n0", "n1", "n2"]
    assert source.labels == [0, 0, 1, 1, 2]
    assert (read_all(source) == PICTURES[[0, 3, 1, 2, 4]]).all()


def test_a_flat_folder_has_no_labels_and_the_order_of_its_pngs(tmp_path):
    for name in ("b.png", "a.JPG", "a-1.png", "10.png", "2.png"):
        Image.fromarray(PICTURES[0]).save(tmp_path / name)
    source = open_source(PictureData(str(tmp_path)))
    assert source.names == ["10", "2", "a-1", "a", "b"]
    assert source.labels is None


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_pictures_stored_in_any_way(tmp_path, save):
    save(tmp_path / "batch.npz", PICTURES, np.array(LABELS))
    source = open_source(PictureData(str(tmp_path / "batch.npz")))
    assert source.names == ["000000", "000001", "000002", "000003", "000004"]
    assert source.labels == LABELS
    assert (read_all(source) == PICTURES).all()
    assert source.read(0).mode == "RGB"


def test_large_arrays_are_not_read_into_memory(tmp_path):
    np.savez(tmp_path / "batch.npz", images=np.asfortranarray(PICTURES))
    source = open_source(PictureData(str(tmp_path / "batch.npz")))
    assert isinstance(source._pictures, np.memmap)
    assert (read_all(source) == PICTURES).all()


@pytest.mark.parametrize("form", ["parquet", "saved", "saved splits"])
def test_a_table_gives_pictures_labels_and_class_names(tmp_path, form):
    path = write_table(tmp_path / "table.parquet")
    if form != "parquet":
        table = datasets.Dataset.from_parquet(str(path))
        path = tmp_path / "saved"
        splits = datasets.DatasetDict({"test": table, "validation": table.select([0])})
        (table if form == "saved" else splits).save_to_disk(path)
    source = open_source(PictureData(str(path), split="test"))
    assert (read_all(source) == PICTURES).all()
    assert source.labels == LABELS
    assert source.class_names == ["cat", "dog", "fox"]


def test_a_limit_takes_pictures_from_all_over_the_source(tmp_path):
    data = PictureData(str(write_folder(tmp_path)), limit=3)
    source = open_source(data)
    assert source.names == ["n0/0", "n0/3", "n1/2"]
    assert source.labels == [0, 0, 1]
    assert (read_all(source) == PICTURES[[0, 3, 2]]).all()
    assert describe_source(source, data)["num_pictures"] == 3
    assert describe_source(source, data)["limit"] == 3


def test_arrays_of_one_length_are_not_taken_for_each_other(tmp_path):
    about = []
    for value in (0, 9):
        path = tmp_path / f"{value}.npz"
        np.savez(path, np.full((3, 8, 8, 3), value, np.uint8))
        data = PictureData(str(path))
        about.append(describe_source(open_source(data), data))
    assert about[0]["names_sha256"] == about[1]["names_sha256"]
    assert about[0]["pixels_sha256"] != about[1]["pixels_sha256"]


def test_an_empty_row_is_named(tmp_path):
    features = datasets.Features(image=datasets.Image())
    table = datasets.Dataset.from_dict({"image": [None]}, features=features)
    table.to_parquet(tmp_path / "table.parquet")
    source = open_source(PictureData(str(tmp_path / "table.parquet")))
    with pytest.raises(ValueError, match=r"row 0 of .*table\.parquet holds no picture"):
        source.read(0)


def test_what_is_no_source_is_named(tmp_path):
    for path, error, message in (
        (tmp_path / "nothing", FileNotFoundError, "no pictures at .*nothing; expected a folder"),
        (tmp_path / "nothing.npz", FileNotFoundError, "no file at .*nothing.npz"),
        (tmp_path / "nothing.parquet", FileNotFoundError, "no table at"),
        (tmp_path, FileNotFoundError, "holds no picture"),
    ):
        with pytest.raises(error, match=message):
            open_source(PictureData(str(path)))


def test_pictures_of_one_name_are_refused(tmp_path):
    for name in ("a.png", "a.jpg"):
        Image.fromarray(PICTURES[0]).save(tmp_path / name)
    with pytest.raises(ValueError, match="has 2 pictures called a in several formats"):
        open_source(PictureData(str(tmp_path)))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"must hold uint8 pictures .*, got float32"),
        (np.zeros((2, 8, 8), np.uint8), r"must hold uint8 pictures .*, got uint8 \(2, 8, 8\)"),
        (np.array([None]), "no .npz of plain arrays .*it holds Python objects"),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, message):
    np.savez(tmp_path / "batch.npz", array)
    with pytest.raises(ValueError, match=message):
        open_source(PictureData(str(tmp_path / "batch.npz")))


def test_a_table_without_pictures_or_without_the_split_is_refused(tmp_path):
    table = datasets.Dataset.from_dict({"text": ["a"]})
    table.to_parquet(tmp_path / "text.parquet")
    with pytest.raises(ValueError, match="has no column of pictures, got text"):
        open_source(PictureData(str(tmp_path / "text.parquet")))
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved")
    with pytest.raises(ValueError, match="has the splits train, got --split validation"):
        open_source(PictureData(str(tmp_path / "saved")))


def test_a_broken_row_is_named(tmp_path):
    features = datasets.Features(image=datasets.Image())
    table = datasets.Dataset.from_dict({"image": [{"bytes": b"x"}]}, features=features)
    table.to_parquet(tmp_path / "table.parquet")
    source = open_source(PictureData(str(tmp_path / "table.parquet")))
    with pytest.raises(ValueError, match=r"cannot read the picture row 0 of .*table\.parquet"):
        source.read(0)
