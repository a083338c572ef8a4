"""What a run reports to: one curve per run however often resumed, and samples beside it."""

import importlib.util
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback, WandbCallback

from unitok.files import atomic_write

TENSORBOARD_FOLDER = "tensorboard"
WANDB_ID_FILE = "wandb_id.txt"  # in a run folder


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"watch.report_to needs the package {name}: pip install {name}, or take it out"
            )


def wandb_options(run: Path) -> dict[str, Any]:
    """For wandb.init: the id in the run folder, under which a resumed run goes on."""
    path = run / WANDB_ID_FILE
    if not path.is_file():
        with atomic_write(path) as temporary:
            temporary.write_text(f"{secrets.token_hex(8)}\n")
    return {"name": run.name, "dir": str(run), "id": path.read_text().strip(), "resume": "allow"}


def tensorboard_callback(run: Path, *, step: int) -> TensorBoardCallback:
    """Writes what is logged into `run`; lines behind `step`, where a lost run had gone on, vanish.

    The Trainer's own default starts a folder per process, and both runs would be shown.
    """
    # Imported here, because the package is missing where nobody reports to it.
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(run / TENSORBOARD_FOLDER), purge_step=step + 1)
    return TensorBoardCallback(writer)


def track_samples(
    callbacks: Sequence[TrainerCallback], step: int, *, grid: Image.Image | None, text: str | None
) -> None:
    """Show drawings and answers of a step beside its curves, in each tracker among `callbacks`."""
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            write_to_tensorboard(callback.tb_writer, step, grid=grid, text=text)
        elif isinstance(callback, WandbCallback):
            log_to_wandb(step, grid=grid, text=text)


def write_to_tensorboard(
    writer: Any, step: int, *, grid: Image.Image | None, text: str | None
) -> None:
    if grid is not None:
        writer.add_image("train/samples", np.asarray(grid), step, dataformats="HWC")
    if text is not None:
        writer.add_text("train/answers", f"```\n{text}```", step)


def log_to_wandb(step: int, *, grid: Image.Image | None, text: str | None) -> None:
    """Add to the run that transformers' callback has begun."""
    import wandb  # missing where nobody reports to it

    values: dict[str, Any] = {"train/global_step": step}
    if grid is not None:
        values["train/samples"] = wandb.Image(grid)
    if text is not None:
        values["train/answers"] = text
    wandb.log(values)
