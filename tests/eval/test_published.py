"""Published scores: every one has a source, and the table shows them beside the same benchmark."""

from pathlib import Path

import numpy as np
import pytest

from eval.bootstrap import Interval
from eval.published import FILE, PublishedScores, published_scores
from eval.report import BenchmarkReport, GroupScore, ItemCounts
from eval.score_table import build_table
from eval.suite_state import SuiteState
from eval.table_picture import MARGIN, draw_table
from unitok.run_config import load_config

MODELS = ("UniTok", "Liquid", "VILA-U", "Show-o", "Janus", "Janus-Pro", "TokenFlow")


def state(reports: dict[str, BenchmarkReport], **more) -> SuiteState:
    settings = {"model": "m", "model_fingerprint": "f" * 16, "dtype": "float32", "limit": None}
    return SuiteState("s", {**settings, **more}, tuple(reports), reports)


def geneval(name: str = "geneval", num_missing: int = 0) -> BenchmarkReport:
    groups = (GroupScore("single_object", 4, 0.5), GroupScore("two_object", 4, 0.25))
    settings = {"detector": "Mask2Former", "detector_fingerprint": "abc"}
    counts = ItemCounts(8, num_missing=num_missing)
    return BenchmarkReport(name, {"overall": 0.375}, counts, groups, settings=settings)


def test_every_score_has_a_source_and_a_place_in_it():
    scores = published_scores()
    for score in scores.scores:
        assert "arXiv" in scores.sources[score.source]
        assert score.where.split()[0] in ("Table", "Figure", "abstract")
    assert {score.model.split(" (")[0] for score in scores.scores} == set(MODELS)


def test_numbers_are_those_of_the_papers():
    scores = {
        (score.model, score.benchmark, score.metric): score.value
        for score in published_scores().scores
    }
    assert scores["UniTok", "vqav2", "accuracy"] == 76.8
    assert scores["UniTok", "pope", "mean_f1"] == 0.832
    assert scores["UniTok", "geneval", "overall"] == 0.59
    assert scores["Show-o (2.0B)", "geneval", "overall"] == 0.68
    assert scores["Janus-Pro", "geneval", "overall"] == 0.80
    assert scores["TokenFlow", "geneval", "overall"] == 0.55
    assert scores["Liquid", "mjhq30k", "fid"] == 5.47
    assert scores["UniTok", "genai_bench", "advanced"] == 0.67


@pytest.mark.parametrize("model", ["UniTok", "Liquid", "Janus", "Show-o (36M)", "Show-o (2.0B)"])
def test_the_six_tasks_average_to_the_overall_score(model):
    scores = {
        score.metric: score.value
        for score in published_scores().of_benchmark("geneval")
        if score.model == model
    }
    overall = scores.pop("overall")
    assert len(scores) == 6
    # Printed with two decimals each: half a unit in the mean and in the overall score.
    assert np.mean(list(scores.values())) == pytest.approx(overall, abs=0.0101)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("where: Table 3", "where: ''", "does not say where"),
        ("source: unitok", "source: nobody", "has the source 'nobody'"),
        ("metric: accuracy", "metrik: accuracy", "metrik"),
        ("benchmark: gqa", "benchmark: vqav2", "UniTok, vqav2, accuracy has two scores"),
    ],
)
def test_a_score_without_a_source_or_with_a_typo_is_refused(tmp_path: Path, old, new, message):
    path = tmp_path / "published.yaml"
    path.write_text(FILE.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        load_config(PublishedScores, path)


# -- beside ours -----------------------------------------------------------------------------------


def test_published_numbers_stand_beside_ours_with_their_sources():
    table = build_table(state({"ge": geneval()}), {"ge": Interval(0.3, 0.45)})
    assert table.heading[:4] == ("benchmark", "metric", "ours (95% interval)", "UniTok")
    overall = dict(zip(table.heading, table.rows[0], strict=True))
    assert overall["ours (95% interval)"] == "0.3750 (0.3000 to 0.4500)"
    assert (overall["UniTok"], overall["Janus-Pro"], overall["TokenFlow"]) == (
        "0.59",
        "0.80",
        "0.55",
    )
    assert [row[1] for row in table.rows] == ["overall", "single_object", "two_object"]
    notes = "\n".join(table.notes)
    assert "ge: detector Mask2Former (abc)" in notes
    assert "published: Janus-Pro, arXiv 2501.17811, Figure 1b: Janus-Pro (7B)" in notes
    assert "UniTok, arXiv 2502.20321v3, Table 4: UniTok, Liquid, Janus" in notes
    assert table.warnings == ()


@pytest.mark.parametrize(
    "name", ["geneval-drawn", "geneval-own", "geneval-5-of-553-official-partial"]
)
def test_no_published_number_stands_beside_other_prompts(name):
    table = build_table(state({"ge": geneval(name)}), {"ge": "no interval"})
    assert table.heading == ("benchmark", "metric", "ours (95% interval)")
    assert "ge: no interval, no interval" in table.notes


def test_a_partial_run_is_marked_in_its_rows_and_above_the_table():
    partial = geneval("geneval-partial", num_missing=3)
    table = build_table(state({"ge": partial}), {"ge": ""})
    assert {row[0] for row in table.rows} == {"ge (PARTIAL)"}
    assert table.warnings == ("INCOMPLETE: ge is a partial run, its scores are no results",)
    limited = build_table(state({"ge": geneval()}, limit=5), {"ge": ""})
    assert limited.rows[0][0] == "ge (PARTIAL)"
    for each in (table, limited):
        assert each.heading == ("benchmark", "metric", "ours (95% interval)")
        assert "published" not in each.markdown()
    assert "**INCOMPLETE: ge ran with a limit of 5" in limited.markdown()


def test_the_picture_has_room_for_everything():
    pixels = np.asarray(draw_table(build_table(state({"ge": geneval()}), {"ge": "x " * 200})))
    edge = MARGIN // 2
    middle = pixels[edge:-edge, edge:-edge]
    assert (middle < 128).any()
    assert (pixels[:edge] == 255).all()
    assert (pixels[-edge:] == 255).all()
    assert (pixels[:, :edge] == 255).all()
    assert (pixels[:, -edge:] == 255).all()
