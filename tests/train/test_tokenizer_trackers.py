"""What TensorBoard and W&B are told by a tokenizer training, also by one that was resumed."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.train import fake_wandb
from tests.train.tokenizer_runs import SHORT, forget_accelerate, run_here, smoke_config, stop_at
from train.trackers import WANDB_ID_FILE

STEPS = [1, 2, 3, 4, 5, 6]


@pytest.fixture(autouse=True)
def _leave_no_accelerate() -> Iterator[None]:
    yield
    forget_accelerate()


def run_in_two_parts(output: Path, tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after step 5, whose checkpoint is lost: the second part goes on from step 4."""
    config = smoke_config(output, *SHORT, f"watch.report_to=[{tracker}]")
    with monkeypatch.context() as patch:
        stop_at(5, patch)
        assert not run_here(config)
    (output / "checkpoints" / "step_000005.pt").unlink()
    assert run_here(config, resume=True)


def test_tensorboard_shows_every_step_of_a_resumed_run_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_in_two_parts(tmp_path / "run", "tensorboard", monkeypatch)
    events = EventAccumulator(str(tmp_path / "run" / "tokenizer")).Reload()
    tags = events.Tags()
    expected = {"train/loss", "train/loss/clip", "train/usage/mean", "train/peak_ram_gib"}
    assert expected | {"eval/psnr", "ema/psnr"} <= set(tags["scalars"])
    assert set(tags["images"]) == {"eval/samples", "ema/samples"}
    assert [event.step for event in events.Scalars("train/loss")] == STEPS
    assert [event.step for event in events.Scalars("eval/psnr")] == [3, 6]
    assert [event.step for event in events.Images("eval/samples")] == [3, 6]


def test_wandb_goes_on_with_the_run_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = fake_wandb.install(monkeypatch)
    run_in_two_parts(tmp_path / "run", "wandb", monkeypatch)
    first, second = runs
    run_id = (tmp_path / "run" / WANDB_ID_FILE).read_text().strip()
    assert first.settings == second.settings
    assert first.settings == {
        "project": "tokenizer", "name": "run", "dir": str(tmp_path / "run"), "id": run_id,
        "resume": "allow",
    }  # fmt: skip
    assert sorted({step for step, _ in first.logged}) == [1, 2, 3, 4, 5]
    assert sorted({step for step, _ in second.logged}) == [5, 6]
    logged = {name for run in runs for _, values in run.logged for name in values}
    assert {"train/loss", "eval/psnr", "eval/samples"} <= logged
    assert first.is_finished
    assert second.is_finished


def test_two_runs_have_different_wandb_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = fake_wandb.install(monkeypatch)
    for name in ("one", "two"):
        changes = (*SHORT, "steps=1", "watch.report_to=[wandb]")
        assert run_here(smoke_config(tmp_path / name, *changes))
    assert runs[0].settings["id"] != runs[1].settings["id"]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")
def test_the_real_wandb_keeps_a_resumed_run_under_one_id_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_in_two_parts(tmp_path / "run", "wandb", monkeypatch)
    run_id = (tmp_path / "run" / WANDB_ID_FILE).read_text().strip()
    parts = list((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert {part.name.rpartition("-")[2] for part in parts} == {run_id}


def test_a_tracker_that_is_not_installed_is_named_before_there_is_a_run_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"watch\.report_to needs the package wandb: pip install"):
        run_here(smoke_config(tmp_path / "run", "watch.report_to=[wandb]"))
    assert not (tmp_path / "run").exists()
