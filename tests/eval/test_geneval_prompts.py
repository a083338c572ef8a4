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


def test_a_limit_takes_the_first_prompts_of_all_tasks_in_turn() -> None:
    prompts = drawn_prompts(3)
    chosen = prompts.limit(8)
    assert [prompt["tag"] for prompt in chosen.prompts] == [*TASKS, *TASKS[:2]]
    assert list(chosen.prompts[:6]) == list(prompts.prompts[::3])
    assert chosen.prompts[6:] == (prompts.prompts[1], prompts.prompts[4])
    assert chosen.describe() == {
        "name": "8-of-18-drawn", "num_prompts": 8, "sha256": chosen.sha256, "num_all": 18
    }  # fmt: skip


def test_a_limit_goes_on_with_the_tasks_that_have_more_prompts() -> None:
    single, *others = drawn_prompts(3).prompts[2:6]
    chosen = PromptSet("own", (single, *others)).limit(3)
    assert chosen.prompts == (single, others[0], others[1])


def test_a_limit_that_leaves_nothing_out_is_the_whole_set() -> None:
    prompts = drawn_prompts(1)
    assert prompts.limit(None) is prompts.limit(6) is prompts.limit(100) is prompts
    assert "num_all" not in prompts.describe()


def test_a_limit_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1 prompt is needed, got a limit of 0"):
        drawn_prompts(1).limit(0)


def test_a_wrong_line_is_named(tmp_path: Path) -> None:
    path = write_prompts(tmp_path / "prompts.jsonl")
    path.write_text(path.read_text() + '{"tag": "colors"}\n')
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 7: expected an object with tag"):
        read_prompts(path)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="has no prompts"):
        read_prompts(tmp_path / "empty.jsonl")
