import json

import pytest
from typer.testing import CliRunner

from eval.demo_results import load_stored_scores
from eval.nano import (
    DEFAULT_ITEMS,
    NanoScores,
    ScoreItems,
    app,
    measure,
    priors_only,
    score_rows,
    uncertainty,
    write_scores,
)
from eval.scene_questions import KINDS
from eval.scene_scores import Rate
from eval.scene_text import TASKS
from mllm.pipeline import Pipeline
from tests.mllm.tiny_pipeline import build_tiny_pipeline


def build_scores(**groups: Rate) -> NanoScores:
    rates = {"all": Rate(100, 90, 10), **groups}
    return NanoScores(rates, rates, rates, rates, settings={})


def test_a_thousand_items_and_more_are_the_default_and_spread_evenly():
    items = ScoreItems.spread(DEFAULT_ITEMS)
    assert items.reconstructions >= 1000
    assert items.questions_per_kind * len(KINDS) == DEFAULT_ITEMS
    assert items.drawings_per_task * len(TASKS) == DEFAULT_ITEMS


def test_the_stored_command_measures_the_same_items():
    assert ScoreItems.spread(DEFAULT_ITEMS).command() == "python -m eval.nano"
    assert ScoreItems.spread(120, seed=3).command() == "python -m eval.nano --items 120 --seed 3"


def test_what_was_measured_is_stored_and_read_back_by_the_demo(tmp_path):
    pipeline = build_tiny_pipeline()
    scores = measure(pipeline, ScoreItems.spread(6))
    write_scores(scores, tmp_path / "nano.json")
    stored = load_stored_scores(tmp_path / "nano.json")
    assert stored.command == "python -m eval.nano --items 6"
    assert stored.model_fingerprint == pipeline.fingerprints()["model_fingerprint"]
    assert {name: rate.num_items for name, rate in stored.rates.items()} == {
        "questions": 6,
        "drawings": 6,
        "reconstruction": 6,
    }
    content = json.loads((tmp_path / "nano.json").read_text())
    assert set(content["questions"]) == {"all", *KINDS}
    assert set(content["drawings"]) == {"all", *TASKS}
    assert content["peak_memory_gib"] > 0
    assert content["speed"]["four_pictures_seconds"] > 0


def test_groups_that_lose_less_than_20_points_are_named():
    scores = build_scores(count=Rate(100, 60, 41), color=Rate(100, 60, 40))
    assert priors_only(scores) == ["questions: count", "drawings: count"]
    assert ("questions", "count", "100", "0.600", "0.410") in score_rows(scores)


def test_few_items_are_said_to_leave_a_wide_interval():
    assert uncertainty(100) == pytest.approx(9.8)
    assert uncertainty(DEFAULT_ITEMS) == pytest.approx(3.1, abs=0.05)


def test_an_output_that_cannot_be_written_is_said_before_anything_is_measured(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(Pipeline, "from_pretrained", lambda *_, **__: 1 / 0)
    result = CliRunner().invoke(app, ["-o", str(tmp_path / "no" / "nano.json")])
    assert result.exit_code == 1
    assert "create the folder" in result.output
