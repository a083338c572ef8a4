"""Codes files: what is written comes back, and nothing else is accepted."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from unitok.codes import CodesFile, ImageCodes, check_fingerprint, load_codes, save_codes

V = 32


def image_codes(name="a", grid=(2, 3), num_codebooks=4):
    return ImageCodes(torch.randint(V, (grid[0] * grid[1], num_codebooks)), grid, name)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "some.codes"
    save_codes(path, [image_codes()], fingerprint="f1", codebook_size=V)
    return path


def test_saved_codes_come_back_with_grids_and_names(tmp_path):
    images = [image_codes("bird.png"), image_codes("köln 2", (1, 5)), image_codes("c", (4, 4))]
    save_codes(tmp_path / "x.codes", images, fingerprint="f1", codebook_size=V)
    back = load_codes(tmp_path / "x.codes")
    assert (back.fingerprint, back.codebook_size) == ("f1", V)
    for before, after in zip(images, back.images, strict=True):
        assert torch.equal(before.codes, after.codes)
        assert after.codes.dtype == torch.int64
        assert (before.grid, before.name) == (after.grid, after.name)


def test_the_largest_code_survives_two_bytes(tmp_path):
    codes = torch.tensor([[0, 65535]])
    save_codes(
        tmp_path / "x", [ImageCodes(codes, (1, 1), "a")], fingerprint="f", codebook_size=65536
    )
    assert torch.equal(load_codes(tmp_path / "x").images[0].codes, codes)
    assert load_file(tmp_path / "x")["codes.000000"].dtype == torch.uint16


def test_codes_of_another_tokenizer_are_refused_with_the_remedy(path):
    check_fingerprint(load_codes(path), "f1")
    with pytest.raises(ValueError, match="made by tokenizer f1, but f2 is loaded; load the one"):
        check_fingerprint(load_codes(path), "f2")


def test_the_released_layout_gets_the_transpose_hint():
    with pytest.raises(ValueError, match=r"must be \(L, K\).*got \(4, 6\); official UniTok files"):
        ImageCodes(torch.zeros(4, 6, dtype=torch.int64), (2, 3), "a")
    with pytest.raises(ValueError, match=r"got \(1, 4, 6\); official UniTok files"):
        ImageCodes(torch.zeros(1, 4, 6, dtype=torch.int64), (2, 3), "a")


def test_codes_that_do_not_fill_their_grid_are_refused():
    with pytest.raises(ValueError, match=r"\(L, K\) with L = 2\*3, got \(5, 4\)$"):
        ImageCodes(torch.zeros(5, 4, dtype=torch.int64), (2, 3), "a")
    with pytest.raises(ValueError, match="must be positive"):
        ImageCodes(torch.zeros(0, 4, dtype=torch.int64), (0, 3), "a")


def test_codes_of_another_type_are_refused():
    with pytest.raises(ValueError, match=r"must be int64, got torch\.float32"):
        ImageCodes(torch.zeros(6, 4), (2, 3), "a")


@pytest.mark.parametrize("name", ["", "..", "../../etc/passwd", "a\\b", "a\nb"])
def test_names_that_are_no_plain_file_names_are_refused(name):
    with pytest.raises(ValueError, match="must be a plain file name"):
        image_codes(name)


@pytest.mark.parametrize("code", [-1, V])
def test_codes_out_of_range_are_refused(tmp_path, code):
    codes = torch.full((1, 1), code)
    with pytest.raises(ValueError, match=f"must be 0 to 31, got {code} to {code}"):
        save_codes(
            tmp_path / "x", [ImageCodes(codes, (1, 1), "a")], fingerprint="f", codebook_size=V
        )
    assert not list(tmp_path.iterdir())


def test_equal_names_no_images_and_large_codebooks_are_refused():
    with pytest.raises(ValueError, match="two images are named 'a'"):
        CodesFile((image_codes(), image_codes()), "f", V)
    with pytest.raises(ValueError, match="at least one image"):
        CodesFile((), "f", V)
    with pytest.raises(ValueError, match="codebook_size must be 1 to 65536, got 65537"):
        CodesFile((image_codes(),), "f", 65537)
    with pytest.raises(ValueError, match="fingerprint"):
        CodesFile((image_codes(),), "", V)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no codes file at .*nowhere"):
        load_codes(tmp_path / "nowhere")
    with pytest.raises(IsADirectoryError, match="name one codes file in it"):
        load_codes(tmp_path)


def test_a_truncated_file_is_refused_wherever_it_ends(path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"some\.codes is no codes file, or a damaged one"):
            load_codes(path)


def test_foreign_files_are_refused(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match="is no codes file"):
        load_codes(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="holds no codes of ours"):
        load_codes(path)


def rewrite(path, tensors=None, **changes):
    """The file at `path` with some metadata changed."""
    length = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"] | changes
    content = load_file(path) if tensors is None else tensors
    save_file(content, path, {key: value for key, value in metadata.items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": "2"}, "format version 2, this program reads version 1"),
        ({"codebook_size": "3"}, "damaged codes file: codes of 'a' must be 0 to 2"),
        ({"codebook_size": "many"}, "damaged codes file: invalid literal"),
        ({"names": "[]"}, "differ in number"),
        ({"names": "7"}, "damaged codes file"),
        ({"names": "{"}, "damaged codes file"),
        ({"names": '["../a"]'}, "plain file name"),
        ({"grids": "[[3, 3]]"}, r"with L = 3\*3"),
        ({"grids": "[[6]]"}, "damaged codes file"),
        ({"grids": "[null]"}, "damaged codes file"),
        ({"fingerprint": None}, "damaged codes file: 'fingerprint'"),
    ],
)
def test_wrong_metadata_are_refused(path, changes, message):
    rewrite(path, **changes)
    with pytest.raises(ValueError, match=message) as caught:
        load_codes(path)
    assert re.search(r"some\.codes", str(caught.value))


def test_tensors_of_another_type_are_refused(path):
    rewrite(path, tensors={"codes.000000": torch.zeros(6, 4)})
    with pytest.raises(ValueError, match="must be uint16"):
        load_codes(path)
