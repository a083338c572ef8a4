"""Now and then in a training: fixed prompts drawn and fixed questions answered, to look at.

Every process draws the same, because under ZeRO-3 a forward pass needs all of them; the main
process keeps the result in samples/ of the run folder and in the trackers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, WandbCallback

from mllm.answer import TextSettings
from mllm.pictures import make_grid, save_png
from mllm.pipeline import Pipeline
from train.stage_config import SampleSettings
from unitok.files import atomic_write

SAMPLES_FOLDER = "samples"


class DrawSamples(TrainerCallback):
    """Draws and answers every so many steps, and at the end."""

    def __init__(self, pipeline: Pipeline, settings: SampleSettings, run: Path) -> None:
        self.pipeline = pipeline
        self.settings = settings
        self.folder = run / SAMPLES_FOLDER
        self.trackers: list[TrainerCallback] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        step = state.global_step
        if step % self.settings.every and step != state.max_steps:
            return
        model = self.pipeline.model
        self.pipeline.tokenizer.to(model.device)
        was_training = model.training
        model.eval()
        with torch.random.fork_rng():  # looking must not change the training
            pictures, answers = self._sample()
        model.train(was_training)
        if state.is_world_process_zero:
            self._keep(step, pictures, answers)

    def _sample(self) -> tuple[list[Image.Image], list[str]]:
        settings = self.settings
        pictures = []
        if settings.prompts:
            pictures = self.pipeline.generate_images(list(settings.prompts), num_images=1, seed=0)
        short = TextSettings(max_new_tokens=settings.answer_length)
        answers = [
            self.pipeline.chat(each.question, each.image, settings=short).text
            for each in settings.questions
        ]
        return pictures, answers

    def _keep(self, step: int, pictures: list[Image.Image], answers: list[str]) -> None:
        self.folder.mkdir(exist_ok=True)
        if pictures:
            grid = make_grid(pictures)
            save_png(grid, self.folder / f"step_{step:06d}.png")
            self._track_image(step, grid)
        if answers:
            asked = [each.question for each in self.settings.questions]
            lines = [f"{q}\n    {a}" for q, a in zip(asked, answers, strict=True)]
            text = "\n".join(lines) + "\n"
            with atomic_write(self.folder / f"step_{step:06d}.txt") as path:
                path.write_text(text, encoding="utf-8")
            self._track_answers(step, text)

    def _track_answers(self, step: int, text: str) -> None:
        for tracker in self.trackers:
            if isinstance(tracker, TensorBoardCallback) and tracker.tb_writer is not None:
                tracker.tb_writer.add_text("train/answers", f"```\n{text}```", step)
            elif isinstance(tracker, WandbCallback):
                tracker._wandb.log({"train/answers": text, "train/global_step": step})

    def _track_image(self, step: int, grid: Image.Image) -> None:
        for tracker in self.trackers:
            if isinstance(tracker, TensorBoardCallback) and tracker.tb_writer is not None:
                tracker.tb_writer.add_image(
                    "train/samples", np.asarray(grid), step, dataformats="HWC"
                )
            elif isinstance(tracker, WandbCallback):
                wandb = tracker._wandb
                wandb.log({"train/samples": wandb.Image(grid), "train/global_step": step})
