"""The stage loop: resume equals uninterrupted, signals save, damage and NaN are named."""

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from train.loop import CALIBRATION_STEPS, LoopConfig, StageLoop

CONFIG = LoopConfig(
    lr=0.01, steps=8, warmup_steps=2, bf16=False, log_every=2, sample_every=4, save_every=3
)


class Numbers(Dataset[Tensor]):
    def __getitem__(self, step: int) -> Tensor:
        return torch.randn(4, 3, generator=torch.Generator().manual_seed(step))


def build_loop(
    folder: Path,
    *,
    config: LoopConfig = CONFIG,
    sample: Callable[[int], Mapping[str, float]] = lambda step: {"eval": 1.0},
    scale: float = 1.0,
) -> StageLoop:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def losses(batch: Tensor) -> Mapping[str, Tensor]:
        mse = (model(batch) - 1).square().mean() * scale
        return {"loss": mse, "mse": mse}

    return StageLoop(
        "stage",
        folder,
        model=model,
        data=Numbers(),
        compute_losses=losses,
        config=config,
        samples_per_step=4,
        sample=sample,
    )


def weights(loop: StageLoop) -> Tensor:
    return torch.cat([param.detach().flatten() for param in loop.model.parameters()])


def stop_at(step: int) -> Callable[[int], Mapping[str, float]]:
    """A preview that is interrupted by SIGTERM at one step."""

    def sample(now: int) -> Mapping[str, float]:
        if now == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {}

    return sample


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_and_resumed_run_ends_with_the_same_weights(
    optimizer: str, tmp_path: Path
) -> None:
    config = CONFIG.model_copy(update={"optimizer": optimizer})
    whole = build_loop(tmp_path / "whole", config=config)
    assert whole.run()
    stopped = build_loop(tmp_path / "parts", config=config, sample=stop_at(4))
    assert not stopped.run()
    assert stopped.step == 4
    resumed = build_loop(tmp_path / "parts", config=config)
    assert resumed.run(resume=True)
    assert torch.equal(weights(whole), weights(resumed))


def test_signal_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    build_loop(tmp_path).run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_last_checkpoints_are_kept_and_the_log_has_every_interval(tmp_path: Path) -> None:
    build_loop(tmp_path).run()
    names = [path.name for path in sorted((tmp_path / "checkpoints").iterdir())]
    assert names == ["step_000006.pt", "step_000008.pt"]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert lines[1]["eval"] == 1.0
    assert {"loss", "mse", "lr", "grad_norm", "samples_per_second"} <= set(lines[0])


def test_a_budget_is_turned_into_steps_once(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": None})
    loop = build_loop(tmp_path, config=config)
    loop.run(minutes=1e-9)
    assert loop.num_steps == loop.step == CALIBRATION_STEPS
    resumed = build_loop(tmp_path, config=config)
    assert resumed.run(minutes=100, resume=True)
    assert resumed.step == CALIBRATION_STEPS


def test_a_set_number_of_steps_can_be_raised(tmp_path: Path) -> None:
    build_loop(tmp_path).run()
    longer = build_loop(tmp_path, config=CONFIG.model_copy(update={"steps": 12}))
    assert longer.run(resume=True)
    assert longer.step == 12


def test_a_run_stopped_before_its_plan_is_planned_when_it_goes_on(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"steps": None})
    assert not build_loop(tmp_path, config=config, sample=stop_at(4)).run(minutes=1e-9)
    resumed = build_loop(tmp_path, config=config)
    assert resumed.run(minutes=1e-9, resume=True)
    assert resumed.step == 4 + CALIBRATION_STEPS


def test_neither_steps_nor_budget_is_an_error(tmp_path: Path) -> None:
    loop = build_loop(tmp_path, config=CONFIG.model_copy(update={"steps": None}))
    with pytest.raises(ValueError, match="needs steps or a budget in minutes"):
        loop.run()


def test_a_damaged_checkpoint_is_named_and_nothing_starts_afresh(tmp_path: Path) -> None:
    build_loop(tmp_path).run()
    newest = tmp_path / "checkpoints" / "step_000008.pt"
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(RuntimeError, match=r"cannot read checkpoint .*step_000008\.pt"):
        build_loop(tmp_path).run(resume=True)


def test_a_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stage: loss is nan at step 0"):
        build_loop(tmp_path, scale=float("nan")).run()
