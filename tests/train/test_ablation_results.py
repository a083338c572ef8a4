"""Tables and plots of ablations, from made-up scores."""

import json
from pathlib import Path

import numpy as np
import pytest

from train.ablation_config import AblationConfig
from train.ablation_plot import draw_study
from train.ablation_results import AblationResults, markdown_table, summary
from train.ablations import RESULTS_FILE, TABLES_FILE, write_results

ABLATION = AblationConfig.model_validate(
    {
        "base": "base.yaml",
        "variants": {"both": {"label": "both losses"}, "pictures": {"label": "pictures only"}},
        "studies": {"losses": {"title": "Losses", "variants": ["pictures", "both"]}},
    }
)


def made_up_run(variant: str, seed: int, captions: float | None) -> dict:
    scores = {
        "psnr": 18.0 + seed,
        "usage": 90.0,
        "perplexity": 50.0,
        "captions": captions,
        "zero_shot": captions,
        "probe": 20.0 - seed,
    }
    return {"variant": variant, "seed": seed, "scores": scores, "minutes": 1.0}


@pytest.fixture
def results() -> AblationResults:
    runs = [made_up_run("both", seed, 30.0 + 10 * seed) for seed in range(3)]
    runs += [made_up_run("pictures", seed, None) for seed in range(3)]
    return AblationResults(ABLATION, {"steps": 5}, runs)


def test_a_row_holds_mean_and_spread_over_seeds(results: AblationResults) -> None:
    table = markdown_table(results.rows("losses")).splitlines()
    assert table[2].startswith("| pictures only | 19.00 ± 1.00 | 90.0 ± 0.0 |")
    assert table[3].startswith("| both losses | 19.00 ± 1.00 | 90.0 ± 0.0 | 50.0 ± 0.0 | 40.0 ± 10")


def test_what_was_never_learned_is_no_number(results: AblationResults) -> None:
    table = markdown_table(results.rows("losses")).splitlines()
    assert table[2].split(" | ")[4:6] == ["-", "-"]


def test_one_seed_has_no_spread() -> None:
    assert summary([3.0], 1) == "3.0"


def test_results_are_written_and_read_back(results: AblationResults, tmp_path: Path) -> None:
    write_results(results, tmp_path)
    again = AblationResults.from_json(tmp_path / RESULTS_FILE)
    assert json.dumps(again.to_json()) == json.dumps(results.to_json())
    assert markdown_table(results.rows("losses")) in (tmp_path / TABLES_FILE).read_text()
    assert (tmp_path / "losses.png").is_file()


def test_a_plot_moves_with_its_values(results: AblationResults) -> None:
    rows = results.rows("losses")
    moved = {label: {**row, "probe": [30.0, 40.0, 50.0]} for label, row in rows.items()}
    pictures = [np.asarray(draw_study("Losses", each)) for each in (rows, moved)]
    assert pictures[0].shape == pictures[1].shape
    assert (pictures[0] != pictures[1]).any()


def test_a_metric_that_no_variant_learned_has_no_panel(results: AblationResults) -> None:
    rows = results.rows("losses")
    fewer = {
        label: {**row, "captions": [], "zero_shot": [], "usage": []} for label, row in rows.items()
    }
    assert draw_study("Losses", fewer).height < draw_study("Losses", rows).height
