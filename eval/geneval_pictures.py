"""The pictures of a GenEval run: drawn by a model into the official folders, resumably.

    <folder>/generation.json          the settings; a folder of other settings is refused
    <folder>/00000/metadata.jsonl     the prompt and what it demands
    <folder>/00000/samples/0000.png   its pictures

The official script starts its random numbers anew before each prompt; here every picture has a seed
of its own, told by the numbers of its prompt and of the picture.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from eval.drawing_options import Drawer
from eval.geneval_prompts import NUM_OFFICIAL_IMAGES, PromptSet
from eval.geneval_results import METADATA_FILE
from eval.picture_commands import begin_pictures, draw_pictures, tell_missing
from eval.picture_folder import PictureJob
from eval.versions import model_versions
from mllm.console import announce
from unitok.files import atomic_write

# Far beyond any number of prompts, so that no two pictures of a run have the same seed.
SEED_STEP = 1_000_000
SEED_RULE = f"seed + number of the prompt + {SEED_STEP} * number of the picture, both from 0"


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


def picture_jobs(
    prompts: PromptSet, folder: Path, *, num_images: int, seed: int
) -> list[PictureJob]:
    """All pictures of a run, prompt by prompt."""
    keys = [
        PictureKey(prompt_number, number)
        for prompt_number in range(len(prompts.prompts))
        for number in range(num_images)
    ]
    return [
        PictureJob(key.path(folder), prompts.prompts[key.prompt_number]["prompt"], key.seed(seed))
        for key in keys
    ]


def generate(
    prompts: PromptSet,
    folder: Path,
    *,
    drawer: Drawer,
    num_images: int = NUM_OFFICIAL_IMAGES,
    num_processes: int = 1,
) -> None:
    """Draw what is missing in `folder`; settings other than those of the pictures are refused."""
    if num_images < 1:
        raise ValueError(f"num_images must be at least 1, got {num_images}")
    pipeline = begin_pictures(
        drawer,
        folder,
        num_processes=num_processes,
        texts=[prompt["prompt"] for prompt in prompts.prompts],
        prompts=prompts.describe(),
        num_images=num_images,
        seed_rule=SEED_RULE,
        versions=model_versions(),
    )
    write_prompts(prompts, folder)
    jobs = picture_jobs(prompts, folder, num_images=num_images, seed=drawer.seed)
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
