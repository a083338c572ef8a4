"""What the commands that draw a benchmark's pictures have in common: options, and the drawing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from eval.picture_folder import (
    SETTINGS_FILE,
    DrawingPlan,
    PictureJob,
    cut_batches,
    describe_drawing,
    draw_missing,
    find_missing,
)
from eval.processes import CountDone, own_share, run_with_bar
from eval.result_folder import begin_folder
from mllm.console import announce
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.share import Share, process_device
from unitok.image import Rounding

Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write to")]
Model = Annotated[str, typer.Option(help="nano, a folder or a hub name")]
Seed = Annotated[int, typer.Option(min=0, help="Of the first picture; the others follow from it")]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures drawn at a time")]
Guidance = Annotated[float | None, typer.Option(help="1: none; by default the model's own")]
Temperature = Annotated[float | None, typer.Option(min=0, help="By default the model's own")]
TopK = Annotated[int | None, typer.Option(min=1, help="By default the model's own")]
TopP = Annotated[float | None, typer.Option(help="By default the model's own")]
NumProcesses = Annotated[int, typer.Option(min=1, help="Side by side, each on its own GPU")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16")]
Partial = Annotated[bool, typer.Option("--partial", help="Score what is there, labelled so")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there")]

SEED_RULE = "seed + number of the picture, from 0"


@dataclass(frozen=True)
class Drawer:
    """Who draws, and how; None leaves a value to the model."""

    model: Model = "nano"
    seed: Seed = 0
    batch_size: BatchSize = MAX_BATCH_SIZE
    guidance_scale: Guidance = None
    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None
    device: Device = "auto"
    dtype: Dtype = None

    def load(self) -> Pipeline:
        """The model, on the device of this process."""
        device = process_device(self.device)
        return Pipeline.from_pretrained(self.model, device=device, dtype=self.dtype)

    def plan(self, pipeline: Pipeline, rounding: Rounding = "round") -> DrawingPlan:
        """The choices about sampling, and the model's own where none was made."""
        sampling = pipeline.build_sampling(
            guidance_scale=self.guidance_scale,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
        )
        return DrawingPlan(sampling, rounding, self.batch_size)


def with_drawer_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of Drawer in place of its argument `drawer`."""
    hints = get_type_hints(Drawer, include_extras=True)
    options = [
        Parameter(
            field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(Drawer)
    ]
    own = [each for each in signature(command).parameters.values() if each.name != "drawer"]
    parameters = [*(each.replace(kind=Parameter.KEYWORD_ONLY) for each in own), *options]

    def run(**values: Any) -> None:
        drawer = Drawer(**{field.name: values.pop(field.name) for field in fields(Drawer)})
        command(drawer=drawer, **values)

    # What typer makes a command line of.
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


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
    rounding: Rounding,
    num_processes: int = 1,
    limit: int | None = None,
    **benchmark: Any,
) -> None:
    """Fill `folder` with a picture of each prompt, or with this process's share of them.

    With a `limit`, only those of the first prompts are drawn. `benchmark` is stored with the
    settings. Picture number i, from 0, has the seed `seed + i`.
    """
    how: Any = {"rounding": rounding, "num_processes": num_processes}
    pipeline = begin_pictures(
        drawer, folder, texts=prompts, seed_rule=SEED_RULE, **how, **benchmark
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
