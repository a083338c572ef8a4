"""What the commands that draw a benchmark's pictures have in common."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.picture_folder import (
    DrawingPlan,
    PictureJob,
    claim_folder,
    describe_drawing,
    draw_missing,
)
from mllm.console import announce, progress_bar
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.share import Share, process_device
from unitok.image import Rounding

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to")]
Model = Annotated[str, typer.Option(help="nano, a folder or a hub name")]
Seed = Annotated[int, typer.Option(min=0, help="Of the first picture; each next has one more")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures drawn at a time")]
Guidance = Annotated[float | None, typer.Option(help="1: none; by default the model's own")]
Temperature = Annotated[float | None, typer.Option(min=0, help="By default the model's own")]
TopK = Annotated[int | None, typer.Option(min=1, help="By default the model's own")]
TopP = Annotated[float | None, typer.Option(help="By default the model's own")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16")]
Partial = Annotated[bool, typer.Option("--partial", help="Score what is there, labelled so")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there")]

SEED_RULE = "seed + number of the picture, from 0"


@dataclass(frozen=True)
class Drawer:
    """Who draws, and how; None leaves a value to the model."""

    model: str = "nano"
    seed: int = 0
    batch_size: int = MAX_BATCH_SIZE
    guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    device: str = "auto"
    dtype: str | None = None

    def plan(self, pipeline: Pipeline, rounding: Rounding) -> DrawingPlan:
        """The choices about sampling, and the model's own where none was made."""
        sampling = pipeline.build_sampling(
            guidance_scale=self.guidance_scale,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )
        return DrawingPlan(sampling, rounding, self.batch_size)


def draw_benchmark(
    drawer: Drawer,
    prompts: Sequence[str],
    paths: Sequence[Path],
    *,
    folder: Path,
    rounding: Rounding,
    limit: int | None = None,
    **benchmark: Any,
) -> None:
    """Fill `folder` with a picture of each prompt, or with this process's share of them.

    With a `limit`, only those of the first prompts are drawn. `benchmark` is stored with the
    settings. Picture number i, from 0, has the seed `seed + i`.
    """
    share = Share.from_environment()
    announce(f"loading {drawer.model}")
    device = process_device(drawer.device)
    pipeline = Pipeline.from_pretrained(drawer.model, device=device, dtype=drawer.dtype)
    plan = drawer.plan(pipeline, rounding)
    settings = describe_drawing(
        pipeline, plan, prompts=prompts, seed=drawer.seed, seed_rule=SEED_RULE, **benchmark
    )
    claim_folder(folder, settings)
    jobs = [
        PictureJob(path, prompt, drawer.seed + number)
        for number, (path, prompt) in enumerate(zip(paths, prompts, strict=True))
    ][:limit]
    # Bars of several processes would overwrite each other.
    with progress_bar("drawing") if share.index == 0 else nullcontext() as report:
        num_stored = draw_missing(pipeline, jobs, plan=plan, share=share, progress=report)
    announce(f"drew {num_stored} pictures; {tell_missing(paths, folder)}")


def tell_missing(paths: Sequence[Path], folder: Path) -> str:
    """How complete a folder is, for the user."""
    num_missing = sum(not path.is_file() for path in paths)
    if num_missing:
        return f"{num_missing} of {len(paths)} are still missing in {folder}"
    return f"all {len(paths)} are in {folder}"
