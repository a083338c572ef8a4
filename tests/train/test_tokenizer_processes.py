"""A short tokenizer training with every loss on two processes: the curve of one."""

from pathlib import Path

import pytest

from tests.train.runs import run_processes
from tests.train.tokenizer_runs import (
    SHORT,
    SMOKE,
    assert_same_run,
    forget_accelerate,
    read_log,
    run_here,
    smoke_config,
)

# Relative, for every value but the previews'. Measured: 2e-5.
SAME = 1e-3


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    output = tmp_path_factory.mktemp("single") / "run"
    assert run_here(smoke_config(output, *SHORT))
    forget_accelerate()
    return output


def launch(output: Path, *options: str, stop: tuple[str, str] | None = None) -> None:
    module = ["tests.train.tokenizer_stopped", *stop] if stop else ["train.tokenizer"]
    run_processes(*module, str(SMOKE), f"output={output}", *SHORT, *options, processes=2)


def assert_same_curve(expected: Path, got: Path) -> None:
    logs = read_log(expected), read_log(got)
    assert [line["step"] for line in logs[1]] == [line["step"] for line in logs[0]]
    for first, second in zip(*logs, strict=True):
        names = [name for name in first if not name.startswith(("usage/", "perplexity/", "ema/"))]
        for name in names:
            assert second[name] == pytest.approx(first[name], rel=SAME, abs=1e-6), name


def test_two_processes_with_half_the_batch_follow_the_curve_of_one(
    single: Path, tmp_path: Path
) -> None:
    launch(tmp_path / "run")
    assert_same_curve(single, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("changes", [("zero1=true",), ("batch.accumulation=2", "batch.size=16")])
def test_two_processes_stopped_and_resumed_are_the_same_bit_for_bit(
    changes: tuple[str, ...], tmp_path: Path
) -> None:
    launch(tmp_path / "whole", *changes)
    launch(tmp_path / "parts", *changes, stop=("3", "SIGTERM"))
    assert not (tmp_path / "parts" / "model").exists()
    launch(tmp_path / "parts", *changes, "--resume")
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_shared_out_moments_change_nothing(single: Path, tmp_path: Path) -> None:
    launch(tmp_path / "run", "zero1=true")
    assert_same_curve(single, tmp_path / "run")


@pytest.mark.slow
def test_accumulation_on_two_processes_keeps_the_contrastive_loss(tmp_path: Path) -> None:
    """Adaptive weight and entropy belong to the part that is taken at once: off."""
    changes = ("batch.size=16", "weights.gan=0", "weights.entropy=0", "optim.lr=1e-4")
    assert run_here(smoke_config(tmp_path / "single", *SHORT, *changes))
    forget_accelerate()
    launch(tmp_path / "run", *changes, "batch.accumulation=2")
    logs = (read_log(tmp_path / name) for name in ("single", "run"))
    for first, second in zip(*logs, strict=True):
        for name in ("loss", "loss/clip", "loss/l1", "loss/vq", "logit_scale", "grad_norm"):
            assert second[name] == pytest.approx(first[name], rel=SAME), name
