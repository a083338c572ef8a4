"""What the commands that draw a benchmark's pictures have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.drawing_options import Drawer
from eval.picture_folder import (
    SETTINGS_FILE,
    PictureJob,
    cut_batches,
    describe_drawing,
    draw_missing,
    find_missing,
)
from eval.processes import CountDone, own_share, run_with_bar
from eval.result_folder import begin_folder
from mllm.console import announce
from mllm.pipeline import Pipeline
from mllm.share import Share
from unitok.image import Rounding

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to")]
NumProcesses = Annotated[int, typer.Option(min=1, help="Side by side, each on its own GPU")]
Partial = Annotated[bool, typer.Option("--partial", help="Score what is there, labelled so")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there")]

SEED_RULE = "seed + number of the picture, from 0"


@dataclass(frozen=True)
class DrawingTask:
    """Draws the pictures that are missing."""

    drawer: Drawer
    jobs: Sequence[PictureJob]
    rounding: Rounding
    pipeline: Pipeline | None  # None: to be loaded

    def run(self, share: Share, count_done: CountDone) -> None:
        """Draw this process's share."""
        pipeline = self.pipeline or self.drawer.load()
        plan = self.drawer.plan(pipeline, self.rounding)
        draw_missing(pipeline, self.jobs, plan=plan, share=share, count_done=count_done)


def begin_pictures(
    drawer: Drawer,
    folder: Path,
    *,
    rounding: Rounding = "round",
    num_processes: int = 1,
    **benchmark: Any,
) -> Pipeline | None:
    """Begin a folder of pictures, or go on in it; `benchmark` goes to `describe_drawing`.

    Returns the model, except where processes load their own and need the memory.
    """
    own_share(num_processes)
    announce(f"loading {drawer.model}")
    pipeline = drawer.load()
    plan = drawer.plan(pipeline, rounding)
    settings = describe_drawing(pipeline, plan, seed=drawer.seed, **benchmark)
    begin_folder(folder, settings, file=SETTINGS_FILE, remarks={"model": drawer.model})
    return pipeline if num_processes == 1 else None


def draw_pictures(
    drawer: Drawer,
    jobs: Sequence[PictureJob],
    *,
    pipeline: Pipeline | None,
    rounding: Rounding = "round",
    num_processes: int = 1,
) -> None:
    """Draw what is missing of `jobs`, or of this process's share of them.

    `pipeline` is that of `begin_pictures`.
    """
    share = own_share(num_processes)
    batches = cut_batches(jobs, drawer.batch_size, share=share)
    num_items = sum(map(len, batches))
    num_missing = sum(map(len, find_missing(batches)))
    announce(f"drawing {num_missing} of {num_items} pictures")
    if not num_missing:
        return
    run_with_bar(
        DrawingTask(drawer, jobs, rounding, pipeline),
        "drawing",
        num_done=num_items - num_missing,
        num_items=num_items,
        num_processes=num_processes,
        share=share,
    )


def draw_benchmark(
    drawer: Drawer,
    prompts: Sequence[str],
    paths: Sequence[Path],
    *,
    folder: Path,
    benchmark: str,
    num_processes: int = 1,
    limit: int | None = None,
) -> None:
    """Fill `folder` with a picture of each prompt, or with this process's share of them.

    As UniTok stores them: pixels cut off to whole levels, files of Pillow's own quality. With a
    `limit`, only those of the first prompts are drawn. Picture number i, from 0, has the seed
    `seed + i`.
    """
    how: Any = {"rounding": "truncate", "num_processes": num_processes}
    pipeline = begin_pictures(
        drawer, folder, texts=prompts, seed_rule=SEED_RULE, benchmark=benchmark, **how
    )
    jobs = [
        PictureJob(path, prompt, drawer.seed + number)
        for number, (path, prompt) in enumerate(zip(paths, prompts, strict=True))
    ][:limit]
    draw_pictures(drawer, jobs, pipeline=pipeline, **how)
    announce(tell_missing([job.path for job in jobs], folder))


def tell_missing(paths: Sequence[Path], folder: Path) -> str:
    """How complete a folder is, for the user."""
    num_missing = sum(not path.is_file() for path in paths)
    if num_missing:
        return f"{num_missing} of {len(paths)} are still missing in {folder}"
    return f"all {len(paths)} are in {folder}"
