"""Sources: every kind gives its samples, any range of them, and says why one is bad."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.train import tiny_sources as tiny
from train.code_shards import PictureCodes
from train.config import load_config
from train.extraction import ExtractConfig
from train.sources import BadSample, RawSample, Source, open_source, read_official_codes

CODES = {"num_codebooks": tiny.NUM_CODEBOOKS, "codebook_size": tiny.CODEBOOK_SIZE}


def opened(values: Mapping[str, Any], folder: Path) -> Source:
    return open_source(tiny.source_config(values, folder), index_folder=folder / "index", **CODES)


def samples_of(values: Mapping[str, Any], folder: Path) -> list[RawSample | BadSample]:
    source = opened(values, folder)
    return list(source.read(0, len(source)))


def llava_samples(folder: Path, *rows: Any) -> list[RawSample | BadSample]:
    path = tiny.write_lines(folder / "rows.jsonl", rows)
    values = {"kind": "llava", "name": "rows", "path": str(path), "images": str(folder)}
    return samples_of(values, folder)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_llava_samples_become_messages_with_picture_parts(tmp_path: Path, suffix: str) -> None:
    sample = samples_of(tiny.write_llava(tmp_path, suffix=suffix), tmp_path)[3]
    assert isinstance(sample, RawSample)
    assert (sample.id, sample.tasks, sample.texts) == ("q3", ("chat",), ())
    assert sample.pictures == (tmp_path / "images" / "3.png",)
    assert sample.messages == [
        {
            "role": "user",
            "content": [{"type": "image", "text": ""}, {"type": "text", "text": "What is it?"}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "It is 3."}]},
    ]


def test_several_images_of_a_llava_sample_stand_where_their_marks_are(tmp_path: Path) -> None:
    (sample,) = llava_samples(
        tmp_path,
        tiny.question(7, ["a.png", "b.png"], "First <image> then <image> ?", "Yes.", "Sure?", "No"),
    )
    assert isinstance(sample, RawSample)
    assert sample.id == "7"
    assert [path.name for path in sample.pictures if isinstance(path, Path)] == ["a.png", "b.png"]
    assert sample.messages is not None
    texts = [part["text"] for part in sample.messages[0]["content"]]
    assert texts == ["First", "", "then", "", "?"]


def test_a_llava_sample_without_a_picture_is_a_chat_too(tmp_path: Path) -> None:
    (sample,) = llava_samples(tmp_path, tiny.question("t", None, "Hello?", "Hi."))
    assert isinstance(sample, RawSample)
    assert sample.pictures == ()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (tiny.question("x", "a.png", "What?", "It."), "0 <image> marks for 1 pictures"),
        (tiny.question("x", ["a.png"], "<image><image>", "It."), "2 <image> marks for 1"),
        (tiny.question("x", None, "<image>", "It."), "1 <image> marks for 0 pictures"),
        (tiny.question("x", None, "What?"), "no answer to learn from"),
        (tiny.question("x", None, "What?", " "), "no answer to learn from"),
        (tiny.question("x", None, "", "It."), "the question is empty"),
        (tiny.question("x", 5, "What?", "It."), "image must be a file name or a list of them"),
        (tiny.question("x", None, "half \ud800", "It."), "half a character"),
        ({"id": "x"}, "no conversation: expected a list of turns, got None"),
        (
            {"id": "x", "conversations": [{"from": "robot", "value": "a"}]},
            "a turn must come from system, human, gpt, got 'robot'",
        ),
    ],
)
def test_a_bad_llava_sample_says_why(tmp_path: Path, row: Any, reason: str) -> None:
    (sample,) = llava_samples(tmp_path, row)
    assert isinstance(sample, BadSample)
    assert sample.id == "x"
    assert reason in sample.reason


def test_the_answer_of_a_llava_sample_can_be_a_caption(tmp_path: Path) -> None:
    path = tiny.write_lines(
        tmp_path / "rows.jsonl",
        [
            tiny.question("a", "a.png", "Describe it.\n<image>", " A cat. "),
            tiny.question("b", None, "Hello?", "Hi."),
            tiny.question("c", "c.png", "<image>\nWhat?", "A dog.", "Sure?", "Yes."),
            tiny.question("d", "d.png", "Draw a bird.", "<image>"),
        ],
    )
    values = {"kind": "llava", "name": "rows", "path": str(path), "task": "image_to_text"}
    caption, *others = samples_of(values, tmp_path)
    assert isinstance(caption, RawSample)
    assert (caption.tasks, caption.texts, caption.messages) == (
        ("image_to_text",),
        ("A cat.",),
        None,
    )
    assert caption.pictures == (Path("a.png"),)
    assert [sample.reason.split(",")[0] for sample in others if isinstance(sample, BadSample)] == [
        "0 pictures and 1 answers",
        "1 pictures and 2 answers",
        "1 pictures and 0 answers",
    ]


def test_a_broken_line_is_one_bad_sample_and_the_rest_keeps_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"text": "a"}\n{"text": \n\n"b"\n\xff\n{"text": "c"}')
    source = opened({"kind": "text", "name": "text", "path": str(path)}, tmp_path)
    found = list(source.read(0, len(source)))
    assert [sample.id for sample in found] == [f"{number:09d}" for number in range(5)]
    reasons = [each.reason for each in found if isinstance(each, BadSample)]
    assert [reason.split(" (")[0] for reason in reasons] == [
        "the line is no JSON",
        "a JSON object was expected, got str",
        "the line is no UTF-8 text",
    ]


def test_tar_samples_are_a_picture_and_its_text(tmp_path: Path) -> None:
    values = tiny.write_tars(tmp_path)
    found = samples_of(values, tmp_path)
    assert [sample.id for sample in found] == [f"{number:04d}" for number in range(6)]
    assert isinstance(found[4], RawSample)
    assert found[4].pictures == (tiny.png(4),)
    assert found[4].texts == ("caption 4",)
    long = samples_of({**values, "text": "long"}, tmp_path)
    assert isinstance(long[4], RawSample)
    assert long[4].texts == ("long 4",)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"a.txt": b"text"}, "0 pictures under the name, expected one"),
        ({"a.0.png": b"-", "a.1.png": b"-", "a.txt": b"text"}, "2 pictures under the name"),
        ({"a.png": b"-"}, "no text: no .txt under the name"),
        ({"a.png": b"-", "a.txt": b" \n"}, "no text in 'txt'"),
    ],
)
def test_a_bad_tar_sample_says_why(
    tmp_path: Path, members: Mapping[str, bytes], reason: str
) -> None:
    path = tiny.write_tar(tmp_path / "a.tar", members)
    values = {"kind": "webdataset", "name": "a", "path": str(path), "task": "image_to_text"}
    (sample,) = samples_of(values, tmp_path)
    assert isinstance(sample, BadSample)
    assert (sample.id, reason in sample.reason) == ("a", True)


def test_a_table_gives_bytes_and_all_captions_for_both_tasks(tmp_path: Path) -> None:
    sample = samples_of(tiny.write_parquet(tmp_path), tmp_path)[5]
    assert isinstance(sample, RawSample)
    assert sample.tasks == ("image_to_text", "text_to_image")
    assert sample.texts == ("one 5", "two 5")
    assert sample.pictures == (tiny.png(5),)


def test_a_saved_dataset_gives_its_pictures_undecoded(tmp_path: Path) -> None:
    sample = samples_of(tiny.write_saved_dataset(tmp_path), tmp_path)[2]
    assert isinstance(sample, RawSample)
    assert sample.texts == ("c 2",)
    assert isinstance(sample.pictures[0], bytes)


def test_a_split_is_chosen_in_a_saved_dict_of_datasets(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "saved")
    values = {"kind": "text", "name": "text", "path": str(tmp_path / "saved"), "split": "test"}
    (sample,) = samples_of(values, tmp_path)
    assert isinstance(sample, RawSample)
    assert sample.texts == ("test",)
    with pytest.raises(ValueError, match="has the splits train, test, got split 'dev'"):
        opened({**values, "split": "dev"}, tmp_path)


def test_pictures_may_be_stored_as_file_names(tmp_path: Path) -> None:
    images = tiny.write_pictures(tmp_path / "images", 1)
    path = tiny.write_lines(tmp_path / "t.jsonl", [{"image": "0.png", "text": "a"}, {"text": "b"}])
    values = {"kind": "datasets", "name": "t", "path": str(path), "task": "image_to_text"}
    good, bad = samples_of({**values, "images": str(images)}, tmp_path)
    assert isinstance(good, RawSample)
    assert good.pictures == (images / "0.png",)
    assert isinstance(bad, BadSample)
    assert bad.reason == "no picture in 'image', got None"


def test_official_codes_are_transposed_at_the_border(tmp_path: Path) -> None:
    by_list, by_string, talk = samples_of(tiny.write_official(tmp_path), tmp_path)
    for sample in (by_list, by_string, talk):
        assert isinstance(sample, RawSample)
        (picture,) = sample.pictures
        assert isinstance(picture, PictureCodes)
        assert picture.grid == (2, 2)
        assert torch.equal(picture.codes, torch.arange(16).reshape(4, 4).T)
    assert isinstance(talk, RawSample)
    assert talk.tasks == ("chat",)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[0] * 4] * 3, r"with K = 4 and L a square, got \(3, 4\)"),
        ([[0] * 3] * 4, r"with K = 4 and L a square, got \(4, 3\)"),
        ([[0] * 4] * 3 + [[0] * 3], "nested lists of one size"),
        ("[[1, ", "nested lists of one size"),
        (5, r"L a square, got \(\)"),
        ([[32] * 4] * 4, "whole numbers from 0 to 31, got 32 to 32"),
        ([[-1] * 4] * 4, "whole numbers from 0 to 31"),
        ([[0.5] * 4] * 4, "whole numbers from 0 to 31, got 0.5 to 0.5"),
        ([[10**30] * 4] * 4, "whole numbers from 0 to 31"),
        ([[], [], [], []], "L a square"),
        ([["0"] * 4] * 4, "whole numbers from 0 to 31"),
    ],
)
def test_official_codes_that_do_not_fit_are_refused(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_official_codes(value, **CODES)


def test_plain_text_is_one_document_a_line(tmp_path: Path) -> None:
    first, second = samples_of(tiny.write_text(tmp_path), tmp_path)
    assert isinstance(first, RawSample)
    assert isinstance(second, RawSample)
    assert (first.tasks, first.texts, second.texts) == (
        ("text",),
        ("first document",),
        ("second document",),
    )


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"path": "none/*.txt"}, FileNotFoundError, r"no file matches none/\*.txt"),
        ({"path": "a.csv"}, ValueError, "a.csv has no suffix of a table; expected .json"),
        ({"path": "folder"}, ValueError, "not one that save_to_disk wrote; name the files in it"),
        ({"path": "bad.parquet"}, ValueError, "bad.parquet is no Parquet file"),
        ({"path": "t.parquet"}, ValueError, "has no column 'text', only other"),
        ({"path": "bad.json"}, ValueError, "bad.json is no JSON file"),
        (
            {"path": "a.csv", "kind": "webdataset", "task": "image_to_text"},
            ValueError,
            "a.csv is no .tar file",
        ),
        (
            {"path": "a.jsonl", "kind": "llava", "images": "nowhere"},
            FileNotFoundError,
            "no folder of pictures at nowhere",
        ),
    ],
)
def test_a_source_that_cannot_be_opened_says_what_to_change(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: Mapping[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("a.csv", "a.jsonl", "bad.parquet"):
        (tmp_path / name).write_text("x")
    (tmp_path / "bad.json").write_text("[1, ")
    pq.write_table(pa.table({"other": ["a"]}), tmp_path / "t.parquet")
    with pytest.raises(error, match=message):
        opened({"kind": "text", "name": "x", **values}, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "csv"}, "Input tag 'csv' found using 'kind' does not match"),
        ({"imagez": "x"}, r"sources.0: unknown key 'imagez' \(did you mean 'images'\?\); expected"),
        ({"name": "a/b"}, r"sources.0.name: String should match pattern .*, got 'a/b'"),
        ({"recipe": "none"}, "no recipe is called 'none'; choose one of reconstruction"),
        ({"kind": "webdataset"}, r"sources.0.task: Field required"),
    ],
)
def test_a_wrong_description_of_a_source_is_named(
    tmp_path: Path, values: Mapping[str, Any], message: str
) -> None:
    described = {"kind": "llava", "name": "a", "path": "a.json", **values}
    with pytest.raises(ValueError, match=message):
        tiny.source_config(described, tmp_path)


def test_two_sources_of_one_name_are_refused(tmp_path: Path) -> None:
    source = {"kind": "text", "name": "a", "path": "a.txt"}
    path = tiny.write_config(tmp_path, [source, source], tokenizer=tmp_path)
    with pytest.raises(ValueError, match="two sources are named 'a'; names must differ"):
        load_config(ExtractConfig, path)


def test_the_tiny_pictures_differ() -> None:
    assert len({tiny.png(number) for number in range(30)}) == 30


def test_official_rows_may_come_as_a_json_list(tmp_path: Path) -> None:
    values = tiny.write_official(tmp_path)
    lines = Path(values["path"]).read_text().splitlines()
    path = tmp_path / "official.json"
    path.write_text(json.dumps([json.loads(line) for line in lines]))
    assert len(samples_of({**values, "path": str(path)}, tmp_path)) == 3
