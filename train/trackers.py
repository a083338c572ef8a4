"""Curves of a run for TensorBoard: one folder, in which a resumed run goes on."""

from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from transformers.integrations import TensorBoardCallback

TENSORBOARD_FOLDER = "tensorboard"


def tensorboard_callback(run: Path, *, step: int) -> TensorBoardCallback:
    """Writes what is logged into `run`; lines behind `step`, where a lost run had gone on, vanish.

    The Trainer's own default starts a folder per process, and both runs would be shown.
    """
    writer = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=step + 1)
    return TensorBoardCallback(writer)
