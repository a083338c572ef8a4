"""What a training says about its steps: a line on the console, one in log.jsonl, the trackers."""

import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image

from eval.memory import peak_memory_gib
from train.run_log import LOG_FILE, cut_back

logger = logging.getLogger(__name__)

# In log.jsonl and the trackers only: there is one value for each codebook.
QUIET = "/codebook_"
MEASURED = ("eval/", "ema/")  # by looking at pictures, not by training


class StepClock:
    """How fast steps go since the last time somebody asked, and what they need."""

    def __init__(self, step: int, *, device: torch.device) -> None:
        self.step = step
        self.device = device
        self.time = time.monotonic()

    def rates(self, step: int, num_steps: int, *, per_step: int) -> dict[str, float]:
        """Pictures a second, and minutes to the end; then begins anew."""
        now = time.monotonic()
        speed = (step - self.step) / (now - self.time)
        self.step, self.time = step, now
        return {
            "images_per_second": speed * per_step,
            **peak_memory(self.device),
            "eta_minutes": (num_steps - step) / speed / 60,
        }

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Time inside is not that of steps."""
        began = time.monotonic()
        yield
        self.time += time.monotonic() - began


class StepLog:
    """The log of the main process."""

    def __init__(self, folder: Path, accelerator: Accelerator) -> None:
        self.path = folder / LOG_FILE
        self.accelerator = accelerator

    def write(self, values: Mapping[str, float], *, step: int, num_steps: int) -> None:
        record = {"step": step, **{name: rounded(value, 8) for name, value in values.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        shown = " ".join(f"{k} {rounded(v)}" for k, v in values.items() if QUIET not in k)
        logger.info("%d/%d %s", step, num_steps, shown)
        named = {
            name if name.startswith(MEASURED) else f"train/{name}": value
            for name, value in values.items()
        }
        self.accelerator.log(named, step=step)

    def show(self, picture: Image.Image, *, name: str, step: int) -> None:
        """Give a picture to the trackers."""
        for tracker in self.accelerator.trackers:
            key = f"{name}/samples"
            if tracker.name == "tensorboard":
                pixels = np.asarray(picture)[None]
                tracker.log_images({key: pixels}, step=step, dataformats="NHWC")
            else:
                tracker.log_images({key: [picture]}, step=step)

    def cut_back(self, step: int) -> None:
        """Forget the lines after a step, which a resumed run writes again."""
        if self.accelerator.is_main_process and self.path.exists():
            cut_back(self.path, step)


def rounded(value: float | str, digits: int = 4) -> float | str:
    """A number that is short enough to read; texts stay."""
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def peak_memory(device: torch.device) -> dict[str, float]:
    """The most that this process has held at once so far, in GiB: on its GPU, or in the RAM."""
    if device.type == "cuda":
        return {"peak_gpu_gib": torch.cuda.max_memory_allocated(device) / 2**30}
    return {"peak_ram_gib": peak_memory_gib()}
