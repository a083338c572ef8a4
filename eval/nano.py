"""The embedded model's scores on the held-out drawn world, printed and stored as JSON."""

import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from eval.scene_questions import KINDS
from eval.scene_scores import Rates, score_drawings, score_questions, score_reconstruction
from eval.scene_text import TASKS
from mllm.console import announce, out, progress_bar
from mllm.generation import default_sampling
from mllm.pipeline import Pipeline
from unitok.files import atomic_write

DEFAULT_ITEMS = 1020  # a multiple of the six tasks and the six kinds
MIN_GAIN = 0.2  # what a shuffle costs less than this much was answered from priors
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


@dataclass(frozen=True)
class NanoScores:
    """All scores of one model, and what makes them repeatable."""

    reconstruction: Rates
    questions: Rates
    drawings: Rates
    drawings_by_count: Rates
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        rates = {
            name: {group: _as_dict(rate) for group, rate in getattr(self, name).items()}
            for name in ("reconstruction", "questions", "drawings", "drawings_by_count")
        }
        return {"command": COMMAND, "date": date.today().isoformat(), **self.settings, **rates}


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
        **pipeline.fingerprints(),
        "items": asdict(items),
        "image_sampling": asdict(default_sampling(pipeline.model)),
        "minutes": round((time.monotonic() - started) / 60, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    return NanoScores(reconstruction, questions, drawings, by_count, settings)


def write_scores(scores: NanoScores, path: Path) -> None:
    """Store scores as JSON in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(scores.to_dict(), indent=2) + "\n")


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
        if rate.score - rate.shuffled_score < MIN_GAIN
    ]


def _as_dict(rate: Any) -> dict[str, float]:
    return {
        "num_items": rate.num_items,
        "score": round(rate.score, 4),
        "shuffled_score": round(rate.shuffled_score, 4),
    }


@app.command(help=f"Score the embedded model.\n\nExample: {COMMAND} -o docs/results/nano.json")
def main(
    model: Annotated[str, typer.Option(help="nano, a folder or a hub name")] = "nano",
    items: Annotated[int, typer.Option(help="Held-out items per score")] = DEFAULT_ITEMS,
    seed: Annotated[int, typer.Option(help="Seed of questions, prompts and drawings")] = 0,
    output: Annotated[Path | None, typer.Option("-o", help="Also store them as JSON")] = None,
) -> None:
    try:
        pipeline = Pipeline.from_pretrained(model)
        scores = measure(pipeline, ScoreItems.spread(items, seed))
        if output is not None:
            write_scores(scores, output)
    except (ValueError, OSError, RuntimeError) as error:
        announce(f"error: {error}")
        sys.exit(1)
    out.print(score_table(scores))
    for name in priors_only(scores):
        announce(f"answered from priors, does not count: {name}")


if __name__ == "__main__":
    app()
