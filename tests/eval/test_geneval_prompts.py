"""Which prompts are official, and which are not."""

import hashlib
import json
from pathlib import Path

import pytest

from eval.geneval_prompts import OFFICIAL_SHA256, PromptSet, drawn_prompts, read_prompts
from eval.scene_text import TASKS, held_out_prompts
from tests.eval.geneval_folders import CASES


def write_prompts(path: Path) -> Path:
    path.write_text("".join(f"{json.dumps(case.metadata)}\n" for case in CASES))
    return path


def test_a_set_has_the_hash_of_its_file(tmp_path: Path) -> None:
    path = write_prompts(tmp_path / "prompts.jsonl")
    prompts = read_prompts(path)
    assert prompts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert prompts == PromptSet("own", tuple(case.metadata for case in CASES))


def test_only_the_official_hash_makes_prompts_official(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_prompts(tmp_path / "prompts.jsonl")
    monkeypatch.setattr("eval.geneval_prompts.OFFICIAL_SHA256", read_prompts(path).sha256)
    assert read_prompts(path).name == "official"
    path.write_text(path.read_text().replace("both", "both!"))
    assert read_prompts(path).name == "own"


def test_the_official_hash_is_that_of_the_specification() -> None:
    assert OFFICIAL_SHA256[:16] == "5c48e0813e812e3c"


def test_drawn_prompts_are_those_of_the_nano_scores() -> None:
    prompts = drawn_prompts(2)
    assert list(prompts.prompts) == held_out_prompts(2)
    assert [prompt["tag"] for prompt in prompts.prompts[::2]] == list(TASKS)


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = write_prompts(tmp_path / "prompts.jsonl")
    path.write_text(path.read_text() + '{"tag": "colors"}\n')
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 7: expected an object with tag"):
        read_prompts(path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="has no prompts"):
        read_prompts(tmp_path / "empty.jsonl")
