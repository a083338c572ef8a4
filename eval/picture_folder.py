"""Folders that a generation benchmark fills: drawn in batches, by any number of processes.

Pictures are cut into batches once, whatever is missing and however many processes draw, and a batch
is drawn as a whole: a picture is always computed together with the same others, so a run that was
killed at any moment ends, started again, with the files of an undisturbed one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from eval.file_hashes import hash_lines
from eval.processes import CountDone, own_items
from eval.result_folder import read_settings
from mllm.drawings import DrawSettings, build_notes
from mllm.pictures import save_png
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.sampling import SamplingParams
from mllm.share import WHOLE, Share
from unitok.files import atomic_write
from unitok.image import Rounding

SETTINGS_FILE = "generation.json"


@dataclass(frozen=True)
class PictureJob:
    """One picture to draw; the suffix of its path chooses the format."""

    path: Path
    prompt: str
    seed: int


@dataclass(frozen=True)
class DrawingPlan:
    """How all pictures of a folder are drawn; `pipeline.build_sampling` gives the sampling."""

    sampling: SamplingParams
    rounding: Rounding = "round"
    batch_size: int = MAX_BATCH_SIZE

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")


def describe_drawing(
    pipeline: Pipeline, plan: DrawingPlan, *, texts: Iterable[str], **benchmark: Any
) -> dict[str, Any]:
    """All that decides what is drawn, for JSON.

    `texts` are the prompts of the whole benchmark, in order. `benchmark` holds its name and what
    else two runs must have in common, such as the seed.
    """
    return {
        **benchmark,
        "prompts_sha256": hash_lines(texts),
        **asdict(plan),
        "image_size": pipeline.image_size,
        "device": pipeline.device.type,
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        **pipeline.fingerprints(),
    }


def read_generation(folder: Path, prompts: Iterable[str]) -> dict[str, Any] | None:
    """How the pictures in `folder` were drawn; None where nobody wrote it down.

    ValueError if they were drawn for other prompts than `prompts`.
    """
    settings = read_settings(folder, file=SETTINGS_FILE)
    if settings is None:
        return None
    if settings.get("prompts_sha256") != hash_lines(prompts):
        raise ValueError(f"the pictures in {folder} were drawn for other prompts than these")
    return settings


def cut_batches(
    jobs: Sequence[PictureJob], batch_size: int, *, share: Share = WHOLE
) -> list[Sequence[PictureJob]]:
    """The batches in which `jobs` are drawn, or a process's share of them."""
    starts = range(0, len(jobs), batch_size)
    return list(own_items([jobs[start : start + batch_size] for start in starts], share))


def find_missing(batches: Iterable[Sequence[PictureJob]]) -> list[Sequence[PictureJob]]:
    """Those batches of which a picture is not there yet."""
    return [batch for batch in batches if not all(job.path.is_file() for job in batch)]


def draw_missing(
    pipeline: Pipeline,
    jobs: Sequence[PictureJob],
    *,
    plan: DrawingPlan,
    share: Share = WHOLE,
    count_done: CountDone = lambda number: None,
) -> int:
    """Draw those pictures of this process's share of `jobs` that are not there yet.

    A prompt that cannot be drawn is refused before the first picture. `count_done` is called with
    the number of pictures of each batch. Returns the number of pictures stored.
    """
    _check_sampling(pipeline, plan.sampling)
    missing = find_missing(cut_batches(jobs, plan.batch_size, share=share))
    for batch in missing:
        for job in batch:
            pipeline.encode_prompt(job.prompt)
    notes = build_notes(pipeline, DrawSettings(**asdict(plan.sampling)))
    num_stored = 0
    for batch in missing:
        num_stored += _draw_batch(pipeline, batch, plan=plan, notes=notes)
        count_done(len(batch))
    return num_stored


def _check_sampling(pipeline: Pipeline, sampling: SamplingParams) -> None:
    usable = pipeline.build_sampling(**asdict(sampling))
    if usable != sampling:  # a None of ours is the model's own value there
        raise ValueError(f"the model would draw with {usable}, not {sampling}; set every value")


def _draw_batch(
    pipeline: Pipeline,
    batch: Sequence[PictureJob],
    *,
    plan: DrawingPlan,
    notes: Mapping[str, object],
) -> int:
    """Draw a whole batch and store what was missing of it; returns how many that were."""
    pictures = pipeline.generate_images(
        [job.prompt for job in batch],
        num_images=1,
        seed=[job.seed for job in batch],
        batch_size=len(batch),
        rounding=plan.rounding,
        **asdict(plan.sampling),
    )
    num_stored = 0
    for job, picture in zip(batch, pictures, strict=True):
        if not job.path.is_file():
            _store(picture, job, notes={**notes, "prompt": job.prompt, "seed": job.seed})
            num_stored += 1
    return num_stored


def _store(picture: Image.Image, job: PictureJob, *, notes: Mapping[str, object]) -> None:
    """Write a picture in one step; a PNG says how to draw it again."""
    job.path.parent.mkdir(parents=True, exist_ok=True)
    if job.path.suffix == ".png":
        save_png(picture, job.path, notes=notes)
        return
    with atomic_write(job.path) as temporary:
        picture.save(temporary)
