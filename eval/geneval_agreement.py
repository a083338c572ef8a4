"""How far two detectors agree on the pictures of one GenEval run."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from eval.geneval_judge import Judge, asks_for_color, sample_key
from eval.geneval_results import ImageResult, find_samples, summarize
from mllm.console import progress_bar

OVERALL = "overall"
LETTERS = ("A", "B")  # of the judges, in the table
Pair = tuple[ImageResult, ImageResult]


@dataclass(frozen=True)
class Difference:
    """A picture on which the verdicts differ."""

    image: str
    prompt: str
    correct: tuple[bool, bool]
    reasons: tuple[str, str]


@dataclass(frozen=True)
class TaskAgreement:
    """Pictures of one task, or of all."""

    task: str
    num_images: int
    num_equal: int
    scores: tuple[float, float]  # 0..1; of all tasks GenEval's overall score

    @property
    def share_equal(self) -> float:
        """Share of pictures with equal verdicts, 0..1."""
        return self.num_equal / self.num_images


@dataclass(frozen=True)
class Agreement:
    """Both judges on the same pictures; `tasks` has `overall` first."""

    judges: tuple[Mapping[str, Any], Mapping[str, Any]]
    tasks: tuple[TaskAgreement, ...]
    differences: tuple[Difference, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        tasks = [{**asdict(task), "share_equal": task.share_equal} for task in self.tasks]
        return {**asdict(self), "tasks": tasks}


def compare_judges(image_dir: Path, first: Judge, second: Judge) -> Agreement:
    """Let both judge every picture below `image_dir`."""
    samples = find_samples(image_dir)
    has_colors = any(map(asks_for_color, samples))
    pairs: dict[str, Pair] = {}
    with progress_bar("comparing") as report:
        for sample in samples:
            key = sample_key(sample, image_dir)
            pairs[key] = (first.judge(sample, key)[1], second.judge(sample, key)[1])
            report(len(pairs), len(samples))
    return Agreement(
        judges=(first.describe(has_colors=has_colors), second.describe(has_colors=has_colors)),
        tasks=count_agreement(list(pairs.values())),
        differences=tuple(
            Difference(
                key,
                one.prompt,
                correct=(one.correct, other.correct),
                reasons=(one.reason, other.reason),
            )
            for key, (one, other) in pairs.items()
            if one.correct != other.correct
        ),
    )


def count_agreement(pairs: Sequence[Pair]) -> tuple[TaskAgreement, ...]:
    """Agreement on all pictures, then task by task in the order of the prompts."""
    first, second = (summarize(results) for results in zip(*pairs, strict=True))
    rows = [(OVERALL, list(pairs), first.overall, second.overall)]
    for one, other in zip(first.tasks, second.tasks, strict=True):
        own = [pair for pair in pairs if pair[0].tag == one.tag]
        rows.append((one.tag, own, one.score, other.score))
    return tuple(
        TaskAgreement(
            task,
            num_images=len(own),
            num_equal=sum(one.correct == other.correct for one, other in own),
            scores=(score, other_score),
        )
        for task, own, score, other_score in rows
    )


def agreement_table(agreement: Agreement) -> Table:
    """Scores of both, by the letters of `judge_lines`, and the share of equal verdicts."""
    table = Table()
    for heading in ("task", "images", *LETTERS, "equal verdicts"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for task in agreement.tasks:
        scores = (f"{score:.5f}" for score in task.scores)
        table.add_row(task.task, str(task.num_images), *scores, f"{task.share_equal:.2%}")
    return table


def judge_lines(agreement: Agreement) -> list[str]:
    """Name and whole fingerprint of both detectors, which a table would cut off."""
    return [
        f"{letter}: {judge['detector']} ({judge['detector_fingerprint']})"
        for letter, judge in zip(LETTERS, agreement.judges, strict=True)
    ]


def difference_lines(agreement: Agreement) -> list[str]:
    """Each picture on which the verdicts differ, with both reasons."""
    return [
        f"{each.image}: {each.prompt}\n"
        + "\n".join(
            f"  {judge['detector']}: {describe_verdict(is_correct, reason)}"
            for judge, is_correct, reason in zip(
                agreement.judges, each.correct, each.reasons, strict=True
            )
        )
        for each in agreement.differences
    ]


def describe_verdict(is_correct: bool, reason: str) -> str:
    """A verdict in one line."""
    return "correct" if is_correct else f"wrong, {'; '.join(reason.splitlines())}"
