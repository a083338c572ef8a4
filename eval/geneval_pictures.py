"""The pictures of a GenEval run: drawn by a model into the official folders, resumably.

    <folder>/generation.json          the settings; a folder of other settings is refused
    <folder>/00000/metadata.jsonl     the prompt and what it demands
    <folder>/00000/samples/0000.png   its pictures

The official script starts its random numbers anew before each prompt; here every picture has a seed
of its own, told by the numbers of its prompt and of the picture.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from eval.geneval_prompts import NUM_OFFICIAL_IMAGES, PromptSet
from eval.geneval_results import METADATA_FILE
from eval.picture_commands import Drawer, begin_pictures, draw_pictures, tell_missing
from eval.picture_folder import PictureJob
from eval.versions import model_versions
from mllm.console import announce
from unitok.files import atomic_write

# Far beyond any number of prompts, so that no two pictures of a run have the same seed.
SEED_STEP = 1_000_000
SEED_RULE = f"seed + number of the prompt + {SEED_STEP} * number of the picture, both from 0"


@dataclass(frozen=True)
class Drawing:
    """What a user chooses about drawing; None leaves a value to the model."""

    model: str = "nano"
    num_images: int = NUM_OFFICIAL_IMAGES
    seed: int = 0
    batch_size: int = 16
    guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    device: str = "auto"
    dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("num_images", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def drawer(self) -> Drawer:
        """Who draws, whatever the number of pictures."""
        return Drawer(**{field.name: getattr(self, field.name) for field in fields(Drawer)})


@dataclass(frozen=True)
class PictureKey:
    """One picture of a run, by numbers that both begin at 0."""

    prompt_number: int
    number: int

    def path(self, folder: Path) -> Path:
        """Where it lies."""
        return folder / f"{self.prompt_number:05d}" / "samples" / f"{self.number:04d}.png"

    def seed(self, seed: int) -> int:
        """Its own seed in a run of `seed`."""
        return seed + self.prompt_number + SEED_STEP * self.number


def picture_jobs(prompts: PromptSet, folder: Path, *, drawing: Drawing) -> list[PictureJob]:
    """All pictures of a run, prompt by prompt."""
    keys = [
        PictureKey(prompt_number, number)
        for prompt_number in range(len(prompts.prompts))
        for number in range(drawing.num_images)
    ]
    return [
        PictureJob(
            key.path(folder), prompts.prompts[key.prompt_number]["prompt"], key.seed(drawing.seed)
        )
        for key in keys
    ]


def generate(prompts: PromptSet, folder: Path, *, drawing: Drawing, num_processes: int = 1) -> None:
    """Draw what is missing in `folder`; settings other than those of the pictures are refused."""
    drawer = drawing.drawer
    pipeline = begin_pictures(
        drawer,
        folder,
        num_processes=num_processes,
        texts=[prompt["prompt"] for prompt in prompts.prompts],
        prompts=prompts.describe(),
        num_images=drawing.num_images,
        seed_rule=SEED_RULE,
        versions=model_versions(),
    )
    write_prompts(prompts, folder)
    jobs = picture_jobs(prompts, folder, drawing=drawing)
    draw_pictures(drawer, jobs, pipeline=pipeline, num_processes=num_processes)
    announce(tell_missing([job.path for job in jobs], folder))


def write_prompts(prompts: PromptSet, folder: Path) -> None:
    """The official folders, each with its prompt."""
    for number, prompt in enumerate(prompts.prompts):
        own = folder / f"{number:05d}"
        (own / "samples").mkdir(parents=True, exist_ok=True)
        if not (own / METADATA_FILE).is_file():
            with atomic_write(own / METADATA_FILE) as temporary:
                temporary.write_text(json.dumps(prompt) + "\n", encoding="utf-8")
