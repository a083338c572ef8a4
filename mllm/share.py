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
            first = int(environment.get("SLURM_ARRAY_TASK_MIN", "0"))
            index = int(environment["SLURM_ARRAY_TASK_ID"]) - first
            count = int(environment["SLURM_ARRAY_TASK_COUNT"])
        if "RANK" in environment:
            world_size = int(environment["WORLD_SIZE"])
            index, count = index * world_size + int(environment["RANK"]), count * world_size
        if not 0 <= index < count:
            raise ValueError(
                f"process number {index} of {count} does not exist; number the jobs of a Slurm "
                "array without gaps, such as --array=0-7"
            )
        return cls(index, count)


WHOLE = Share()


def process_device(name: str, environment: Mapping[str, str] = os.environ) -> "torch.device":
    """The device called `name`; processes of one machine share its GPUs out."""
    import torch  # here, because most of those that share work out need no tensors

    from mllm.devices import choose_device

    device = choose_device(name)
    if str(device) == "cuda":
        local_rank = int(environment.get("LOCAL_RANK", "0"))
        return torch.device("cuda", local_rank % torch.cuda.device_count())
    return device
