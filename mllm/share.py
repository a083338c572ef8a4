"""Work that several processes divide between them: which one this is, and on which GPU."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Share:
    """This process is number `index` of `count` that divide the work."""

    index: int = 0
    count: int = 1

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Share":
        """What torchrun and accelerate (RANK), a Slurm array, or both together say."""
        index, count = 0, 1
        if "SLURM_ARRAY_TASK_ID" in environment:
            numbers = {"SLURM_ARRAY_TASK_MIN": "0", **environment}
            first = _number(numbers, "SLURM_ARRAY_TASK_MIN")
            index = _number(numbers, "SLURM_ARRAY_TASK_ID") - first
            count = _number(numbers, "SLURM_ARRAY_TASK_COUNT")
        if "RANK" in environment:
            world_size = _number(environment, "WORLD_SIZE")
            index = index * world_size + _number(environment, "RANK")
            count *= world_size
        if not 0 <= index < count:
            raise ValueError(
                f"process number {index} of {count} does not exist; number the jobs of a Slurm "
                "array without gaps, such as --array=0-7"
            )
        return cls(index, count)


def _number(environment: Mapping[str, str], name: str) -> int:
    """The whole number in an environment variable."""
    value = environment.get(name)
    if value is None or not value.isdecimal():
        raise ValueError(
            f"the environment variable {name} must be a whole number, got {value!r}; torchrun sets "
            "RANK and WORLD_SIZE, and a Slurm array SLURM_ARRAY_TASK_ID and _COUNT: start one of "
            "them, or unset these for a single process"
        )
    return int(value)


WHOLE = Share()


def process_device(name: str, environment: Mapping[str, str] = os.environ) -> "torch.device":
    """The device called `name`; processes of one machine share its GPUs out."""
    import torch  # here, because most of those that share work out need no tensors

    from mllm.devices import choose_device

    device = choose_device(name)
    if str(device) == "cuda":
        local_rank = _number({"LOCAL_RANK": "0", **environment}, "LOCAL_RANK")
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return device
