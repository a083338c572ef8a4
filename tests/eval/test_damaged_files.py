"""Damaged files of the understanding benchmarks: refused before anything runs, in one sentence."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eval.answer_files import read_answers
from eval.gqa import read_predictions
from eval.mmvet import read_any_answers
from eval.suite_entries import RunSetup, UnderstandingEntry
from eval.vqav2 import read_intact_answers
from tests.eval.small_bundle import bundle_files, write_bundle

OPTIONS = {"vqav2": ("split=val",)}  # the other splits have no annotations
FILES = [
    (benchmark, name)
    for benchmark, files in bundle_files().items()
    for name in (list(files)[:2] if benchmark in ("pope", "mme") else files)  # others are alike
]
NOT_NEEDED = ("category", "detailed", "global", "v1_0", "v1_1")  # optional, or a record's id


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_bundle(folder)
    return folder


@pytest.fixture
def damage(data: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file that a test may overwrite."""
    path = data / request.param
    before = path.read_bytes()
    yield path
    path.write_bytes(before)


def check(benchmark: str, data: Path) -> None:
    entry = UnderstandingEntry(kind="vqa", benchmark=benchmark, options=OPTIONS.get(benchmark, ()))
    entry.check(RunSetup(data=data))


def refusal(benchmark: str, data: Path) -> str:
    """What the check says; any other error than a user's is one of the test."""
    with pytest.raises((ValueError, OSError)) as caught:
        check(benchmark, data)
    return str(caught.value)


def test_intact_files_pass_the_check(data):
    for benchmark in bundle_files():
        check(benchmark, data)


@pytest.mark.parametrize(("benchmark", "damage"), FILES, indirect=["damage"])
def test_a_file_that_is_something_else_is_named(benchmark, data, damage):
    contents = (b"", b"3", b"null", b"<html>\n<p>Not found</p>\n", b"\x89PNG\r\n\xff\xfe\x00")
    for content in contents:
        damage.write_bytes(content)
        said = refusal(benchmark, data)
        # Which of MME's files lacks a question cannot be known.
        assert damage.name in said or (damage.suffix == ".txt" and "no question" in said), content
        assert "\n" not in said


@pytest.mark.parametrize(("benchmark", "damage"), FILES, indirect=["damage"])
def test_a_file_that_ends_in_the_middle_is_refused(benchmark, data, damage):
    text = damage.read_text()
    damage.write_text(text[: len(text) // 2 + 3])
    assert "\n" not in refusal(benchmark, data)


JSON_FILES = [(benchmark, name) for benchmark, name in FILES if ".json" in name]
# A label without picture and question is paired by its place alone.
FIELD_FILES = [(benchmark, name) for benchmark, name in JSON_FILES if "coco_pope" not in name]


@pytest.mark.parametrize(("benchmark", "damage"), FIELD_FILES, indirect=["damage"])
def test_a_record_without_one_of_its_fields_is_refused(benchmark, data, damage):
    first, *rest = damage.read_text().splitlines()
    content = json.loads(first)
    for place in places(content):
        if isinstance(place[-1], str) and place[-1].isidentifier() and place[-1] not in NOT_NEEDED:
            changed = copy.deepcopy(content)
            del node_above(changed, place)[place[-1]]
            damage.write_text("\n".join([json.dumps(changed), *rest]))
            assert "\n" not in refusal(benchmark, data), place


@pytest.mark.parametrize(("benchmark", "damage"), JSON_FILES, indirect=["damage"])
def test_a_value_of_another_kind_never_ends_in_a_traceback(benchmark, data, damage):
    first, *rest = damage.read_text().splitlines()
    content = json.loads(first)
    for place in places(content):
        for value in (None, 3, "x", [], {}):
            changed = copy.deepcopy(content)
            node_above(changed, place)[place[-1]] = value
            damage.write_text("\n".join([json.dumps(changed), *rest]))
            with suppress(ValueError, OSError):  # many are as good as the value that was there
                check(benchmark, data)


def places(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a value stands in a document; of the entries of a list, the first."""
    keys = content if isinstance(content, dict) else [0] if isinstance(content, list) else []
    for key in keys:
        yield (*above, key)
        yield from places(content[key], (*above, key))


def node_above(content: Any, place: tuple[Any, ...]) -> Any:
    for key in place[:-1]:
        content = content[key]
    return content


@pytest.mark.parametrize("column", ["index", "question", "A", "B", "image"])
def test_a_table_without_a_column_is_refused(data, column):
    path = data / "mmbench" / "mmbench_dev_20230712.tsv"
    text = path.read_text()
    rows = [line.split("\t") for line in text.splitlines()]
    place = rows[0].index(column)
    path.write_text("".join("\t".join(row[:place] + row[place + 1 :]) + "\n" for row in rows))
    said = refusal("mmbench", data)
    path.write_text(text)
    assert f"lacks {column}" in said or "holds no picture" in said


@pytest.mark.parametrize("read", [read_answers, read_any_answers, read_predictions])
def test_an_answer_file_that_is_no_text_is_named(tmp_path, read):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"answers.jsonl, line 1: expected one JSON object"):
        read(path)


def test_an_answer_file_of_vqav2_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"\x89PNG\r\n\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"answers.jsonl is no text file"):
        read_intact_answers(path)
