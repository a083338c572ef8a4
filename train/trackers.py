"""Where a run's curves go: trackers, and TensorBoard's folder, in which a resumed run goes on."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

TENSORBOARD_FOLDER = "tensorboard"


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"watch.report_to needs the package {name}: pip install {name}, or take it out"
            )


def tensorboard_callback(run: Path, *, step: int) -> TensorBoardCallback:
    """Writes what is logged into `run`; lines behind `step`, where a lost run had gone on, vanish.

    The Trainer's own default starts a folder per process, and both runs would be shown.
    """
    writer = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=step + 1)
    return TensorBoardCallback(writer)
