"""The pictures of a GenEval run: drawn by a model into the official folders, resumably.

    <folder>/generation.json          the settings; a folder of other settings is refused
    <folder>/00000/metadata.jsonl     the prompt and what it demands
    <folder>/00000/samples/0000.png   its pictures

The official script starts its random numbers anew before each prompt; here every picture has a seed
of its own, told by the numbers of its prompt and of the picture. Batches are the same in every run
of the same settings, whatever is missing, so a resumed run ends with the same files.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.geneval_prompts import NUM_OFFICIAL_IMAGES, PromptSet
from eval.processes import CountDone, own_items, run_with_bar
from eval.result_folder import begin_folder
from eval.versions import model_versions
from mllm.console import announce
from mllm.share import Share, process_device
from unitok.files import atomic_write

if TYPE_CHECKING:
    from mllm.pipeline import Pipeline

SETTINGS_FILE = "generation.json"
METADATA_FILE = "metadata.jsonl"
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

    def load_pipeline(self) -> "Pipeline":
        """The model, ready to draw on the device of this process."""
        from mllm.pipeline import Pipeline

        device = process_device(self.device)
        return Pipeline.from_pretrained(self.model, device=device, dtype=self.dtype)

    def sampling(self) -> dict[str, Any]:
        """The choices about sampling."""
        names = ("guidance_scale", "temperature", "top_k", "top_p")
        return {name: getattr(self, name) for name in names}


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


def cut_batches(num_prompts: int, drawing: Drawing) -> list[list[PictureKey]]:
    """All pictures of a run in the batches in which they are drawn."""
    keys = [
        PictureKey(prompt_number, number)
        for prompt_number in range(num_prompts)
        for number in range(drawing.num_images)
    ]
    return [
        keys[start : start + drawing.batch_size]
        for start in range(0, len(keys), drawing.batch_size)
    ]


def generate(prompts: PromptSet, folder: Path, *, drawing: Drawing, num_processes: int = 1) -> None:
    """Draw what is missing in `folder`; settings other than those of the pictures are refused."""
    announce(f"loading {drawing.model}")
    pipeline = drawing.load_pipeline()
    for prompt in prompts.prompts:
        pipeline.encode_prompt(prompt["prompt"])
    settings = build_settings(pipeline, prompts, drawing=drawing)
    remarks = {"model": drawing.model}
    begin_folder(folder, settings, file=SETTINGS_FILE, remarks=remarks)
    write_prompts(prompts, folder)
    batches = cut_batches(len(prompts.prompts), drawing)
    missing = [batch for batch in batches if any(not key.path(folder).is_file() for key in batch)]
    num_pictures = len(prompts.prompts) * drawing.num_images
    num_done = num_pictures - sum(map(len, missing))
    if not missing:
        announce(f"all {num_pictures} pictures are there")
        return
    announce(f"drawing {num_pictures - num_done} of {num_pictures} pictures into {folder}")
    # A pipeline is not handed to other processes: they load their own.
    task = DrawingTask(folder, prompts, drawing, missing, pipeline if num_processes == 1 else None)
    del pipeline
    run_with_bar(
        task, "drawing", num_done=num_done, num_items=num_pictures, num_processes=num_processes
    )


@dataclass(frozen=True)
class DrawingTask:
    """Draws batches of pictures."""

    folder: Path
    prompts: PromptSet
    drawing: Drawing
    batches: Sequence[Sequence[PictureKey]]
    pipeline: "Pipeline | None"  # None: to be loaded

    def run(self, share: Share, count_done: CountDone) -> None:
        """Draw this process's batches."""
        own = own_items(self.batches, share)
        if not own:
            return
        pipeline = self.pipeline or self.drawing.load_pipeline()
        for batch in own:
            self._draw(pipeline, batch)
            count_done(len(batch))

    def _draw(self, pipeline: "Pipeline", batch: Sequence[PictureKey]) -> None:
        """Draw a whole batch and store what was missing of it."""
        from mllm.drawings import DrawSettings, build_notes
        from mllm.pictures import save_png

        prompts = [self.prompts.prompts[key.prompt_number]["prompt"] for key in batch]
        seeds = [key.seed(self.drawing.seed) for key in batch]
        sampling = self.drawing.sampling()
        pictures = pipeline.generate_images(
            prompts, num_images=1, seed=seeds, batch_size=len(batch), **sampling
        )
        notes = build_notes(pipeline, DrawSettings(**sampling))
        for key, prompt, seed, picture in zip(batch, prompts, seeds, pictures, strict=True):
            path = key.path(self.folder)
            if not path.is_file():
                save_png(picture, path, notes={"prompt": prompt, **notes, "seed": seed})


# ---- settings and folders ------------------------------------------------------------------------


def build_settings(pipeline: "Pipeline", prompts: PromptSet, *, drawing: Drawing) -> dict[str, Any]:
    """All that a picture depends on, for JSON."""
    return {
        **pipeline.fingerprints(),
        "prompts": prompts.describe(),
        "num_images": drawing.num_images,
        "image_size": pipeline.image_size,
        "image_sampling": asdict(pipeline.build_sampling(**drawing.sampling())),
        "seed": drawing.seed,
        "seed_rule": SEED_RULE,
        "batch_size": drawing.batch_size,
        "device": pipeline.device.type,
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        "versions": model_versions(),
    }


def write_prompts(prompts: PromptSet, folder: Path) -> None:
    """The official folders, each with its prompt."""
    for number, prompt in enumerate(prompts.prompts):
        own = folder / f"{number:05d}"
        (own / "samples").mkdir(parents=True, exist_ok=True)
        if not (own / METADATA_FILE).is_file():
            with atomic_write(own / METADATA_FILE) as temporary:
                temporary.write_text(json.dumps(prompt) + "\n", encoding="utf-8")
