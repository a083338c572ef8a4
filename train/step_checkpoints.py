"""Checkpoints that are one file each: checkpoints/step_000500.pt, of which the newest are kept."""

import logging
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unitok.files import atomic_write

# What reading a damaged file may raise.
DAMAGE = (
    OSError, ValueError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError,
    zipfile.BadZipFile,
)  # fmt: skip

logger = logging.getLogger(__name__)


class StepCheckpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path, *, keep: int) -> None:
        self.folder = run / "checkpoints"
        self.keep = keep

    def paths(self) -> list[Path]:
        """The oldest first."""
        return sorted(self.folder.glob("step_*.pt"), key=_step_of)

    def save(self, state: Mapping[str, Any], step: int) -> None:
        """Write a state of tensors and plain values in one step; drop what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / f"step_{step:06d}.pt") as temporary:
            torch.save(dict(state), temporary)
        for old in self.paths()[: -self.keep]:
            old.unlink()

    def load_newest(self) -> dict[str, Any] | None:
        """The newest state; None if there is none. A damaged one is an error, never passed over."""
        paths = self.paths()
        if not paths:
            logger.info("no checkpoint in %s yet, starting at step 0", self.folder)
            return None
        try:
            check_content(paths[-1])
            # Mapped, or each process of a machine would hold all of it.
            state: dict[str, Any] = torch.load(
                paths[-1], map_location="cpu", weights_only=True, mmap=True
            )
        except DAMAGE as error:
            raise RuntimeError(
                f"cannot read checkpoint {paths[-1]} ({error}); delete it to go on from the one "
                "before"
            ) from error
        logger.info("resumed %s", paths[-1])
        return state


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step_"))


def check_content(checkpoint: Path) -> None:
    """Raise ValueError for content that is not what was written: torch does not look."""
    with zipfile.ZipFile(checkpoint) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} in it is wrong")


def passing_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that are no part of the weights but of the training, such as update counts."""
    kept = model.state_dict().keys()
    return {name: value for name, value in model.named_buffers() if name not in kept}


def restore_passing_buffers(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Give them the values that were saved."""
    for name, buffer in passing_buffers(model).items():
        buffer.copy_(saved[name])
