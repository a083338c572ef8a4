"""Folders that a generation benchmark fills: drawn in batches, by any number of processes.

A picture that is in the folder is not drawn again, and each is written in one step, so a run may
be killed at any moment and started again. What decides how pictures look is stored beside them; a
folder that was begun with other settings is refused, because nobody could tell them apart later.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.sampling import SamplingParams
from unitok.files import atomic_write, read_json
from unitok.image import Rounding
from unitok.share import Share

SETTINGS_FILE = "drawing_settings.json"


@dataclass(frozen=True)
class PictureJob:
    """One picture to draw; the suffix of its path chooses the format."""

    path: Path
    prompt: str
    seed: int


def describe_drawing(
    pipeline: Pipeline,
    sampling: SamplingParams,
    *,
    prompts: Iterable[str],
    rounding: Rounding = "round",
    **benchmark: Any,
) -> dict[str, Any]:
    """All that decides what is drawn, for JSON.

    `prompts` are those of the whole benchmark, in order, also where only some are drawn now.
    `benchmark` holds its name and whatever else two runs must have in common, such as the seed.
    """
    return {
        **benchmark,
        "prompts_sha256": hash_lines(prompts),
        "sampling": asdict(sampling),
        "rounding": rounding,
        "image_size": pipeline.image_size,
        "dtype": str(pipeline.model.dtype).removeprefix("torch."),
        **pipeline.fingerprints(),
    }


def hash_lines(lines: Iterable[str]) -> str:
    """SHA-256 of lines joined by newlines, as UTF-8."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def claim_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Make `folder` one of pictures drawn with `settings`; ValueError if it is one of others."""
    file = folder / SETTINGS_FILE
    if file.is_file():
        _refuse_other_settings(folder, read_json(file), settings)
        return
    # Hidden files are what a process that starts at the same moment is about to rename.
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ValueError(
            f"{folder} has files but no {SETTINGS_FILE} that says how its pictures were drawn; "
            "name an empty or new folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _refuse_other_settings(
    folder: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    wanted = json.loads(json.dumps(settings))  # as the stored ones: lists for tuples
    for name in sorted({*stored, *wanted}):
        if stored.get(name) != wanted.get(name):
            raise ValueError(
                f"the pictures in {folder} were drawn with {name} {stored.get(name)}, not "
                f"{wanted.get(name)}; give the same settings to go on, or name another folder"
            )


def draw_missing(
    pipeline: Pipeline,
    jobs: Sequence[PictureJob],
    *,
    sampling: SamplingParams,
    rounding: Rounding = "round",
    batch_size: int = MAX_BATCH_SIZE,
    share: Share | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Draw this process's share of `jobs` as far as its pictures are not there yet.

    A prompt that cannot be drawn is refused before the first picture. `progress` is called with
    the pictures that are there and all of the share. Returns the number of pictures drawn.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if (usable := pipeline.build_sampling(**asdict(sampling))) != sampling:
        raise ValueError(
            f"the model would draw with {usable}, not with {sampling}; set every value"
        )
    share = share or Share()
    own = jobs[share.index :: share.count]
    missing = [job for job in own if not job.path.is_file()]
    for job in missing:
        pipeline.encode_prompt(job.prompt)
    for start in range(0, len(missing), batch_size):
        if progress is not None:
            progress(len(own) - len(missing) + start, len(own))
        _draw_batch(pipeline, missing[start : start + batch_size], sampling, rounding=rounding)
    if progress is not None:
        progress(len(own), len(own))
    return len(missing)


def _draw_batch(
    pipeline: Pipeline, batch: Sequence[PictureJob], sampling: SamplingParams, *, rounding: Rounding
) -> None:
    pictures = pipeline.generate_images(
        [job.prompt for job in batch],
        num_images=1,
        seed=[job.seed for job in batch],
        batch_size=len(batch),
        rounding=rounding,
        **asdict(sampling),
    )
    for job, picture in zip(batch, pictures, strict=True):
        job.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(job.path) as temporary:
            picture.save(temporary)
