"""Where a process of several runs its model."""

import pytest
import torch

from mllm.devices import process_device


@pytest.mark.gpu
def test_processes_share_the_gpus_of_a_machine() -> None:
    assert process_device("auto", {"LOCAL_RANK": "0"}) == torch.device("cuda", 0)


def test_a_machine_without_gpus_has_one_device_for_all_processes() -> None:
    assert process_device("cpu", {"LOCAL_RANK": "1"}) == torch.device("cpu")
