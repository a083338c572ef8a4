"""Which process of several this one is."""

from collections.abc import Mapping

import pytest
import torch

from mllm.share import Share, process_device


@pytest.mark.parametrize(
    ("environment", "share"),
    [
        ({}, Share(0, 1)),
        ({"RANK": "2", "WORLD_SIZE": "4"}, Share(2, 4)),
        ({"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "8"}, Share(3, 8)),
        (
            {
                "SLURM_ARRAY_TASK_ID": "3",
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_ARRAY_TASK_MIN": "2",
                "RANK": "1",
                "WORLD_SIZE": "4",
            },
            Share(5, 8),
        ),
    ],
)
def test_the_share_comes_from_torchrun_and_slurm(
    environment: Mapping[str, str], share: Share
) -> None:
    assert Share.from_environment(environment) == share


def test_an_array_with_gaps_is_refused() -> None:
    environment = {"SLURM_ARRAY_TASK_ID": "8", "SLURM_ARRAY_TASK_COUNT": "3"}
    with pytest.raises(ValueError, match="process number 8 of 3 does not exist; number the jobs"):
        Share.from_environment(environment)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE must be a whole number, got None"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK must be a whole number, got 'one'"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "WORLD_SIZE must be a whole number, got ''"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_COUNT must be .*, got None"),
        (
            {"SLURM_ARRAY_TASK_ID": "", "SLURM_ARRAY_TASK_COUNT": "2"},
            "SLURM_ARRAY_TASK_ID must be a whole number, got ''",
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_ARRAY_TASK_COUNT": "2",
                "SLURM_ARRAY_TASK_MIN": "0-3",
            },
            "SLURM_ARRAY_TASK_MIN must be .*, got '0-3'",
        ),
    ],
)
def test_variables_that_are_missing_or_odd_are_named(
    environment: Mapping[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Share.from_environment(environment)


@pytest.mark.gpu
def test_processes_share_the_gpus_of_a_machine() -> None:
    assert process_device("auto", {"LOCAL_RANK": "0"}) == torch.device("cuda", 0)
