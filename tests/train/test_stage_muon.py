"""A stage with Muon, as one with AdamW: it resumes exactly, however a step is cut."""

from pathlib import Path

import pytest

from tests.train.runs import assert_same_weights, log_without_times, read_losses
from tests.train.test_mllm import build_config, run_until
from train.mllm import run_stage
from train.stage_config import StageConfig

pytestmark = pytest.mark.slow


def muon_stage(materials: dict[str, Path], output: Path, **changes) -> StageConfig:
    optim = {"optimizer": "muon", "lr": 3e-3, "clip_grad": 0, "text_weight": 5.0}
    return build_config(materials, output, optim=optim, **changes)


def test_a_stopped_and_resumed_stage_with_muon_ends_with_the_same_weights(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parts = (muon_stage(materials, tmp_path / name) for name in ("whole", "parts"))
    assert run_stage(whole)
    run_until(3, parts, monkeypatch)
    assert run_stage(parts, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    assert log_without_times(tmp_path / "whole") == log_without_times(tmp_path / "parts")


def test_how_a_step_is_cut_changes_nothing_with_a_weight_on_text(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    for name, (samples, accumulation) in {"whole": (4, 1), "single": (1, 4)}.items():
        batch = {"samples_per_pack": samples, "accumulation": accumulation}
        run_stage(muon_stage(materials, tmp_path / name, batch=batch))
    expected = read_losses(tmp_path / "whole")
    assert read_losses(tmp_path / "single") == pytest.approx(expected, rel=1e-3)


def test_a_weight_on_text_lowers_the_loss_of_text(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    last = {}
    for weight in (1.0, 50.0):
        optim = {"lr": 1e-3, "text_weight": weight}
        run_stage(build_config(materials, tmp_path / str(weight), optim=optim))
        lines = log_without_times(tmp_path / str(weight))
        last[weight] = next(
            line["eval_loss/text"] for line in lines[::-1] if "eval_loss/text" in line
        )
    assert last[50.0] < last[1.0]
