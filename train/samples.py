"""Now and then in a training: fixed prompts drawn and fixed questions answered, to look at.

Every process draws the same, because under ZeRO-3 a forward pass needs all of them; the main
process keeps the result in samples/ of the run folder and in the trackers.
"""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mllm.answer import TextSettings
from mllm.pictures import make_grid, save_png
from mllm.pipeline import Pipeline
from train.stage_config import SampleSettings
from train.trackers import track_samples
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
        grid = make_grid(pictures) if pictures else None
        text = self._transcript(answers) if answers else None
        if grid is not None:
            save_png(grid, self.folder / f"step_{step:06d}.png")
        if text is not None:
            with atomic_write(self.folder / f"step_{step:06d}.txt") as path:
                path.write_text(text, encoding="utf-8")
        track_samples(self.trackers, step, grid=grid, text=text)

    def _transcript(self, answers: list[str]) -> str:
        asked = [each.question for each in self.settings.questions]
        return "".join(f"{q}\n    {a}\n" for q, a in zip(asked, answers, strict=True))
