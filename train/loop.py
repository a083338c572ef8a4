"""The training loop of the nano recipe: one process, planned to a time budget, exactly resumable.

A run folder holds checkpoints/step_000500.pt (model, optimizers, random state, step and the planned
number of steps), log.jsonl and samples/. Data come from a function of the step number alone, so an
interrupted and resumed run ends with the same weights as an undisturbed one.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from eval.memory import peak_memory_gib
from train.config import RunConfig
from train.optimizers import OptimizerName, build_optimizers
from train.schedules import cosine_rate
from train.step_checkpoints import StepCheckpoints, passing_buffers, restore_passing_buffers
from train.step_log import rounded
from train.stop_request import StopRequest, leave_signals_to_parent

logger = logging.getLogger(__name__)

CALIBRATION_STEPS = 10  # of a process, to plan a budgeted run; all but the first two are timed
UNTIMED_STEPS = 2  # they allocate memory and are slower


class LoopConfig(RunConfig):
    """Optimisation and bookkeeping of one stage."""

    optimizer: OptimizerName = "adamw"
    lr: float = Field(gt=0)
    steps: int | None = None  # None: planned from the budget and the measured speed
    warmup_steps: int = 200
    final_lr_ratio: float = 0.02
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.02
    clip_grad: float = 1.0
    bf16: bool = True
    seed: int = 0
    log_every: int = 50
    sample_every: int = 500
    save_every: int = 500
    keep_checkpoints: int = 2


class StageLoop:
    """Runs one stage: `compute_losses(batch)` returns named scalars, of which `loss` is trained."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        model: nn.Module,
        data: Dataset[Any],
        compute_losses: Callable[[Any], Mapping[str, Tensor]],
        config: LoopConfig,
        samples_per_step: int,
        sample: Callable[[int], Mapping[str, float]],
    ) -> None:
        """`data[step]` is the batch of that step; `sample(step)` draws and scores, now and then."""
        self.name = name
        self.folder = folder
        self.model = model
        self.data = data
        self.compute_losses = compute_losses
        self.config = config
        self.samples_per_step = samples_per_step
        self.sample = sample
        self.optimizers = build_optimizers(
            model,
            config.optimizer,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self.checkpoints = StepCheckpoints(folder, keep=config.keep_checkpoints)
        self.step = 0
        self.num_steps = config.steps or 0

    def run(self, *, minutes: float | None = None, resume: bool = False) -> bool:
        """Train to the end; returns False when a signal stopped it before (state is saved)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self.num_steps and minutes is None:
            raise ValueError(f"stage {self.name} needs steps or a budget in minutes")
        torch.manual_seed(self.config.seed)
        if resume:
            self._resume()
        started, first_step = time.monotonic(), self.step
        timed_from = started
        with StopRequest() as stop:
            for batch in self._batches():
                if self.step == first_step + UNTIMED_STEPS:
                    timed_from = time.monotonic()
                values = self._train_step(batch)
                self.step += 1
                if self.step == first_step + CALIBRATION_STEPS and not self.num_steps:
                    self._plan(minutes or 0, time.monotonic() - timed_from)
                self._report(values, started, first_step)
                if stop.received:
                    self._save()
                    logger.info("%s stopped at step %d; --resume goes on", self.name, self.step)
                    return self.step == self.num_steps
                if self.step == self.num_steps:
                    break
        self._save()
        return True

    def _batches(self) -> DataLoader[Any]:
        # Before the plan is made the end is unknown: the loop breaks out of an endless range.
        steps = range(self.step, self.num_steps or 10**9)
        return DataLoader(
            self.data,
            batch_size=None,
            sampler=steps,
            num_workers=1,
            prefetch_factor=4,
            worker_init_fn=leave_signals_to_parent,
            generator=torch.Generator(),  # or starting it would disturb dropout's random state
        )

    def _train_step(self, batch: Any) -> dict[str, float]:
        # Until the plan is made, warm-up is all that can happen.
        lr = cosine_rate(
            self.step,
            self.num_steps or 10**9,
            peak=self.config.lr,
            warmup_steps=self.config.warmup_steps,
            final_ratio=self.config.final_lr_ratio,
        )
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        self.model.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.bf16):
            losses = self.compute_losses(batch)
        for name, value in losses.items():
            if not torch.isfinite(value):
                raise RuntimeError(f"{self.name}: {name} is {value.item()} at step {self.step}")
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_grad)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {name: value.item() for name, value in losses.items()} | {
            "lr": lr,
            "grad_norm": norm.item(),
        }

    def _plan(self, minutes: float, seconds: float) -> None:
        per_step = seconds / (CALIBRATION_STEPS - UNTIMED_STEPS)
        self.num_steps = max(self.step, int(minutes * 60 / per_step))
        logger.info("%s: %d steps of %.2f s planned", self.name, self.num_steps, per_step)

    def _report(self, values: dict[str, float], started: float, first_step: int) -> None:
        config, last = self.config, self.step == self.num_steps
        if self.step % config.sample_every == 0 or last:
            self.model.eval()
            with torch.no_grad():
                values |= self.sample(self.step)
        if self.step % config.log_every == 0 or self.step % config.sample_every == 0 or last:
            elapsed = time.monotonic() - started
            speed = (self.step - first_step) / elapsed
            values["samples_per_second"] = speed * self.samples_per_step
            values["peak_memory_gib"] = peak_memory_gib()
            minutes_left = max(0, self.num_steps - self.step) / speed / 60
            self._log(values, minutes_left)
        if self.step % config.save_every == 0:
            self._save()

    def _log(self, values: dict[str, float], minutes_left: float) -> None:
        record: dict[str, Any] = {"stage": self.name, "step": self.step, **values}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({k: rounded(v) for k, v in record.items()}) + "\n")
        shown = " ".join(f"{name} {rounded(value)}" for name, value in values.items())
        logger.info(
            "%s %d/%d %s eta %.1f min", self.name, self.step, self.num_steps, shown, minutes_left
        )

    def _save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "passing_buffers": passing_buffers(self.model),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "num_steps": self.num_steps,
            "random": torch.get_rng_state(),
        }
        self.checkpoints.save(state, self.step)

    def _resume(self) -> None:
        """Load the newest checkpoint; a damaged one is an error, never a fresh start."""
        state = self.checkpoints.load_newest()
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        restore_passing_buffers(self.model, state["passing_buffers"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]
        self.num_steps = self.config.steps or state["num_steps"]  # a set number can be raised
        torch.set_rng_state(state["random"])
