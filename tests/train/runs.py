"""Looking at finished runs of `train.mllm`, and starting some on several processes."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from train.parts import part_of

ROOT = Path(__file__).parents[2]


def read_losses(run: Path) -> list[float]:
    """The loss of every logged step."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def log_without_times(run: Path) -> list[dict[str, float]]:
    """What the log says, but for how fast it went."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    named = [{key: line[key] for key in line if "per_second" not in key} for line in lines]
    return [line for line in named if "train_runtime" not in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def changed_parts(
    before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]
) -> set[str]:
    """The parts of the model in which two sets of weights differ, as exactly as `after` is kept."""
    return {
        part_of(name)
        for name, value in after.items()
        if "quantizer" not in name and not torch.equal(value, before[name].to(value.dtype))
    }


def assert_same_weights(expected: Path, got: Path) -> None:
    """Two runs ended with the same weights, bit for bit."""
    first, second = weights(expected), weights(got)
    assert all(torch.equal(first[key], second[key]) for key in first)


def run_module(*command: str, folder: Path | None = None) -> None:
    """`python -m COMMAND...` in a process of its own, in `folder`."""
    environment = {
        **os.environ,
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),  # this checkout, whatever is installed
    }
    result = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=900,
        env=environment,
        check=False,
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr[-3000:]


def run_processes(*command: str, processes: int, folder: Path | None = None) -> None:
    """The same on several processes, under torchrun."""
    port = str(29500 + os.getpid() % 1000)
    launcher = ("torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", port)
    run_module(*launcher, "-m", *command, folder=folder)
