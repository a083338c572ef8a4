"""The launch files: what they start, and that they resume when there is a run to go on with."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.train.runs import ROOT

LAUNCH = ROOT / "train" / "configs" / "launch"
STAND_INS = {
    "torchrun": 'echo torchrun "$@"',
    "srun": '"$@"',
    "scontrol": "echo node1; echo node2",
}


def launch(name: str, folder: Path, *arguments: str) -> list[str]:
    """The words of the command that the launch file runs, where other programs only say theirs."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for program, line in STAND_INS.items():
        (programs / program).write_text(f"#!/bin/bash\n{line}\n")
        (programs / program).chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_NNODES": "2",
    }
    command = ["bash", str(LAUNCH / name), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.parametrize("name", ["slurm.sh", "one_machine.sh"])
def test_a_launch_file_resumes_only_where_there_is_a_run(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = launch(name, tmp_path, "stage.yaml", str(run), "optim.lr=1e-4")
    assert words[0] == "torchrun"
    assert words[-5:] == ["-m", "train.mllm", "stage.yaml", f"output={run}", "optim.lr=1e-4"]
    run.mkdir()
    (run / "config.yaml").write_text("")
    again = launch(name, tmp_path, "stage.yaml", str(run), "optim.lr=1e-4")
    assert again == [*words, "--resume"]


def test_the_machines_of_a_slurm_job_meet_at_the_first(tmp_path: Path) -> None:
    words = launch("slurm.sh", tmp_path, "stage.yaml", "run")
    assert words[words.index("--nnodes") + 1] == "2"
    assert words[words.index("--rdzv_endpoint") + 1] == "node1:29500"
