"""Arrays about many pictures on their way: one file for each batch, whoever made it.

Batches are cut once, the same for any number of processes, and a batch whose file is missing is
computed as a whole: what a picture is computed together with never changes. So a run that was
killed at any moment ends, started again, with the numbers of an undisturbed one.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.processes import Task, own_items, own_share, run_with_bar
from mllm.console import announce
from mllm.share import WHOLE, Share
from unitok.files import atomic_write


class BatchParts:
    """The files of one folder, for pictures 0 to `num_items` - 1."""

    def __init__(self, folder: Path, *, num_items: int, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.folder = folder
        self._batches = [
            range(start, min(start + batch_size, num_items))
            for start in range(0, num_items, batch_size)
        ]

    def missing(self, share: Share = WHOLE) -> list[range]:
        """Those batches of a share that have no file yet."""
        own = own_items(self._batches, share)
        return [batch for batch in own if not self._path(batch).is_file()]

    def count(self, share: Share = WHOLE) -> tuple[int, int]:
        """How many pictures of a share are done, and how many there are."""
        num_items = sum(map(len, own_items(self._batches, share)))
        return num_items - sum(map(len, self.missing(share))), num_items

    def store(self, batch: range, arrays: Mapping[str, NDArray]) -> None:
        """Write the arrays of a batch, each (B, ...), in one step."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._path(batch)) as temporary:
            np.savez(temporary, allow_pickle=False, **dict(arrays))

    def read(self) -> dict[str, NDArray]:
        """All arrays, batch after batch; call it when no batch is missing."""
        parts = []
        for batch in self._batches:
            with np.load(self._path(batch), allow_pickle=False) as stored:
                parts.append({name: stored[name] for name in stored.files})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _path(self, batch: range) -> Path:
        return self.folder / f"{batch.start:07d}-{batch.stop:07d}.npz"


def fill_parts(parts: BatchParts, task: Task, description: str, *, num_processes: int) -> bool:
    """Let `task` store what this command has to, in one process or in several.

    Under torchrun, that is one share. True if no batch is missing afterwards.
    """
    share = own_share(num_processes)
    num_done, num_items = parts.count(share)
    announce(f"{description} {num_items - num_done} of {num_items} pictures")
    # Also with nothing to do: the task refuses a folder that was begun with other settings.
    run_with_bar(
        task,
        description,
        num_done=num_done,
        num_items=num_items,
        num_processes=num_processes,
        share=share,
    )
    num_done, num_items = parts.count()
    if num_done < num_items:
        announce(f"this process is done; others have {num_items - num_done} pictures to do")
    return num_done == num_items
