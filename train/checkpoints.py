"""Checkpoints of a staged training: complete or named as damaged, and saved when a signal comes.

Processes share the work of reading a checkpoint's files for their checksums.
"""

import json
import logging
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from eval.file_hashes import sha256_of
from train.stop_request import StopRequest
from unitok.files import atomic_write, read_json

CHECKPOINTS_FOLDER = "checkpoints"  # in a run folder
COMPLETE_FILE = "complete.json"  # written last: a checkpoint without it was cut off

logger = logging.getLogger(__name__)


class CompleteMarker(TrainerCallback):
    """Marks each checkpoint when everything of it is on disk."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        PartialState().wait_for_everyone()
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        mark = {"processes": PartialState().num_processes, "sha256": file_checksums(folder)}
        if state.is_world_process_zero:
            with atomic_write(folder / COMPLETE_FILE) as temporary:
                temporary.write_text(json.dumps(mark) + "\n")


class StopOnSignal(TrainerCallback):
    """A signal to stop in any process: all save after the step at hand and end."""

    def __init__(self, request: StopRequest) -> None:
        self._request = request

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if self._request.received_anywhere(args.device):
            control.should_save = control.should_training_stop = True


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
    check_files(newest)
    return newest


def file_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of each file in a folder and below, but for the mark and files in the making.

    All processes call it: each reads its share of the files.
    """
    state = PartialState()
    names = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != COMPLETE_FILE and not path.name.startswith(".")
    ]
    # The first process says which files there are: other machines may see them later.
    (names,) = broadcast_object_list([names])
    own = names[state.process_index :: state.num_processes]
    return dict(gather_object([(name, sha256_of(folder / name)) for name in own]))


def check_files(checkpoint: Path) -> None:
    """Raise ValueError for a file that is not as it was when all was written."""
    found = file_checksums(checkpoint)
    for name, checksum in read_json(checkpoint / COMPLETE_FILE)["sha256"].items():
        if found.get(name) != checksum:
            problem = "is not as it was written" if name in found else "is missing"
            raise ValueError(
                f"checkpoint {checkpoint} is damaged: {name} {problem}; delete the checkpoint to "
                "go on from the one before"
            )
