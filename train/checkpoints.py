"""Checkpoints of a staged training: complete or named as damaged, and saved when a signal comes."""

import json
import logging
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train.stop_request import StopRequest
from unitok.files import atomic_write, read_json

COMPLETE_FILE = "complete.json"  # written last: a checkpoint without it was cut off

logger = logging.getLogger(__name__)


class CompleteMarker(TrainerCallback):
    """Marks each checkpoint when everything of it is on disk."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            with atomic_write(folder / COMPLETE_FILE) as temporary:
                mark = {"processes": PartialState().num_processes, "bytes": file_sizes(folder)}
                temporary.write_text(json.dumps(mark) + "\n")


class StopOnSignal(TrainerCallback):
    """SIGTERM or Ctrl-C in any process: all save after the step at hand and end."""

    def __init__(self) -> None:
        self._request = StopRequest()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._request.__enter__()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._request.received_anywhere(args.device):
            control.should_save = control.should_training_stop = True

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._request.__exit__()


def find_start(folder: Path) -> Path | None:
    """The checkpoint that a resumed run goes on from; None if it was stopped before its first.

    Raises ValueError for another number of processes: each would see other samples.
    """
    if not any(folder.glob("checkpoint-*")):
        logger.info("no checkpoint in %s yet, starting at step 0", folder)
        return None
    newest = find_checkpoint(folder)
    processes = read_json(newest / COMPLETE_FILE)["processes"]
    if processes != PartialState().num_processes:
        raise ValueError(
            f"{newest} was written by {processes} processes, now there are "
            f"{PartialState().num_processes}; resume with {processes}, or consolidate it and start "
            "a new run from the result"
        )
    return newest


def step_of(checkpoint: Path) -> int:
    """After how many steps it was written."""
    return int(checkpoint.name.split("-")[1])


def find_checkpoint(folder: Path, *, step: int | None = None) -> Path:
    """The newest checkpoint, or that of `step`; one that was cut off is an error."""
    found = sorted(folder.glob("checkpoint-*"), key=step_of)
    wanted = [path for path in found if step is None or path.name == f"checkpoint-{step}"]
    if not wanted:
        known = ", ".join(path.name for path in found) or "none at all"
        raise FileNotFoundError(f"no such checkpoint in {folder}; there is {known}")
    newest = wanted[-1]
    if not (newest / COMPLETE_FILE).is_file():
        raise ValueError(
            f"checkpoint {newest} is incomplete: writing it was cut off; delete it to go on from "
            "the one before"
        )
    check_sizes(newest)
    return newest


def file_sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file in a folder and below, but for the mark and files in the making."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != COMPLETE_FILE and not path.name.startswith(".")
    }


def check_sizes(checkpoint: Path) -> None:
    """Raise ValueError for files that are not as long as they were when all was written."""
    found = file_sizes(checkpoint)
    for name, size in read_json(checkpoint / COMPLETE_FILE)["bytes"].items():
        if found.get(name) != size:
            raise ValueError(
                f"checkpoint {checkpoint} is damaged: {name} had {size} bytes, now it has "
                f"{found.get(name, 'none')}; delete the checkpoint to go on from the one before"
            )
