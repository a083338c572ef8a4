"""The embedded model's scores on the held-out drawn world, printed and stored as JSON."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from PIL import Image
from rich.table import Table

from eval.memory import peak_memory_gib
from eval.scene_questions import KINDS
from eval.scene_scores import Rates, score_drawings, score_questions, score_reconstruction
from eval.scene_text import TASKS
from eval.scenes import render, scene_for
from mllm.console import (
    announce,
    out,
    progress_bar,
    quiet_libraries,
    say,
    user_errors,
)
from mllm.generation import default_sampling
from mllm.pipeline import Pipeline
from unitok.files import check_output, write_json

DEFAULT_ITEMS = 1020  # a multiple of the six tasks and the six kinds
MIN_GAIN = 20  # points; what a shuffle costs less than this was answered from priors
NUM_TIMED = 5
COMMAND = "python -m eval.nano"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class ScoreItems:
    """How many held-out items each score looks at."""

    reconstructions: int
    questions_per_kind: int
    drawings_per_task: int
    seed: int = 0

    @classmethod
    def spread(cls, num_items: int, seed: int = 0) -> "ScoreItems":
        """`num_items` scenes, about as many questions and as many drawings."""
        if num_items < max(len(KINDS), len(TASKS)):
            raise ValueError(f"at least {len(TASKS)} items are needed, got {num_items}")
        return cls(num_items, num_items // len(KINDS), num_items // len(TASKS), seed)

    def command(self) -> str:
        """What measures these items of the embedded model."""
        options = [COMMAND]
        if self.reconstructions != DEFAULT_ITEMS:
            options.append(f"--items {self.reconstructions}")
        if self.seed:
            options.append(f"--seed {self.seed}")
        return " ".join(options)


@dataclass(frozen=True)
class NanoScores:
    """All scores of one model, and what makes them repeatable."""

    reconstruction: Rates
    questions: Rates
    drawings: Rates
    drawings_by_count: Rates
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As stored; `command` measures the same items of the embedded model again."""
        rates = {
            name: {group: _as_dict(rate) for group, rate in getattr(self, name).items()}
            for name in ("reconstruction", "questions", "drawings", "drawings_by_count")
        }
        return {"date": date.today().isoformat(), **self.settings, **rates}


def measure(pipeline: Pipeline, items: ScoreItems) -> NanoScores:
    """Score a pipeline on held-out scenes; the same items and seeds give the same numbers."""
    started = time.monotonic()
    with progress_bar("reconstructing") as report:
        reconstruction = score_reconstruction(
            pipeline.tokenizer, num_items=items.reconstructions, progress=report
        )
    with progress_bar("answering") as report:
        questions = score_questions(
            pipeline, num_per_kind=items.questions_per_kind, seed=items.seed, progress=report
        )
    with progress_bar("drawing") as report:
        drawings, by_count = score_drawings(
            pipeline, num_per_task=items.drawings_per_task, seed=items.seed, progress=report
        )
    settings = {
        "command": items.command(),
        **pipeline.fingerprints(),
        "items": asdict(items),
        "image_sampling": asdict(default_sampling(pipeline.model)),
        "speed": measure_speed(pipeline),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
    }
    return NanoScores(reconstruction, questions, drawings, by_count, settings)


def measure_speed(pipeline: Pipeline) -> dict[str, float]:
    """Median seconds of one chat answer about a picture, and of four pictures of one prompt."""
    picture = Image.fromarray(render(scene_for("held_out", 0), pipeline.image_size))
    return {
        "chat_answer_seconds": median_seconds(
            lambda: pipeline.chat("how many objects are there?", picture, max_new_tokens=16)
        ),
        "four_pictures_seconds": median_seconds(
            lambda: pipeline.generate_images("a red circle left of a blue square", num_images=4)
        ),
        "threads": torch.get_num_threads(),
    }


def median_seconds(task: Callable[[], object]) -> float:
    """Of some runs after one that warms up."""
    seconds = []
    for _ in range(NUM_TIMED + 1):
        started = time.monotonic()
        task()
        seconds.append(time.monotonic() - started)
    return round(statistics.median(seconds[1:]), 2)


def write_scores(scores: NanoScores, path: Path) -> None:
    """Store scores as JSON in one step."""
    write_json(scores.to_dict(), path)


def score_table(scores: NanoScores) -> Table:
    """Every group with its items, score, and score after the shuffle."""
    table = Table(title="held-out drawn scenes")
    for heading in ("score", "group", "items", "right", "shuffled"):
        table.add_column(heading)
    for row in score_rows(scores):
        table.add_row(*row)
    return table


def score_rows(scores: NanoScores) -> list[tuple[str, str, str, str, str]]:
    """Rows (score, group, items, right, shuffled) as text."""
    parts = {
        "reconstruction": scores.reconstruction,
        "questions": scores.questions,
        "drawings": scores.drawings,
        "drawings by count": scores.drawings_by_count,
    }
    return [
        (name, group, str(rate.num_items), f"{rate.score:.3f}", f"{rate.shuffled_score:.3f}")
        for name, rates in parts.items()
        for group, rate in rates.items()
        if not (name == "drawings by count" and group == "all")
    ]


def priors_only(scores: NanoScores) -> list[str]:
    """Question kinds and tasks that lose too little by the shuffle to count as understood."""
    return [
        f"{name}: {group}"
        for name in ("questions", "drawings")
        for group, rate in getattr(scores, name).items()
        if 100 * (rate.num_right - rate.num_right_shuffled) < MIN_GAIN * rate.num_items
    ]


def uncertainty(num_items: int) -> float:
    """Half the widest 95 % interval of a score over so many items, in points of 100."""
    return 100 * 1.96 * math.sqrt(0.25 / num_items)


def _as_dict(rate: Any) -> dict[str, float]:
    return {
        "num_items": rate.num_items,
        "score": round(rate.score, 4),
        "shuffled_score": round(rate.shuffled_score, 4),
    }


@app.command(help=f"Score the embedded model.\n\nExample: {COMMAND} -o scores.json")
def main(
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    items: Annotated[int, typer.Option(help="Held-out items per score")] = DEFAULT_ITEMS,
    seed: Annotated[int, typer.Option(help="Seed of questions, prompts and drawings")] = 0,
    output: Annotated[Path | None, typer.Option("-o", help="Also store them as JSON")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there")] = False,
) -> None:
    quiet_libraries()
    with user_errors():
        if output is not None:
            check_output(output, force=force)
        pipeline = Pipeline.from_pretrained(model)
        scores = measure(pipeline, ScoreItems.spread(items, seed))
        if output is not None:
            write_scores(scores, output)
    out.print(score_table(scores))
    speed = scores.settings["speed"]
    say(
        f"once loaded: {speed['chat_answer_seconds']} s a chat answer, "
        f"{speed['four_pictures_seconds']} s four pictures, on {speed['threads']} threads; "
        f"peak memory {scores.settings['peak_memory_gib']} GiB"
    )
    if items < DEFAULT_ITEMS:
        announce(
            f"with {items} items a score is known to about {uncertainty(items):.0f} points "
            f"(95 %), and a kind or task to {uncertainty(items // len(KINDS)):.0f}; the stored "
            f"scores have {DEFAULT_ITEMS} items"
        )
    for name in priors_only(scores):
        announce(f"loses less than {MIN_GAIN} points by the shuffle, does not count: {name}")


if __name__ == "__main__":
    app()
