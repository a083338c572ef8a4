"""GenAI-Bench with 527 prompts, as UniTok and Liquid report it: draw the pictures, score them.

The prompts and their skills are the benchmark's own files. A picture's score is a VQAScore from a
scorer, or from a file of scores that were made elsewhere.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from eval.drawing_options import Drawer, with_drawer_options
from eval.file_hashes import sha256_of
from eval.genai_skills import (
    ALL,
    TABLES,
    printed_tables,
    read_prompts,
    read_scores,
    read_skills,
    score_skills,
)
from eval.picture_commands import (
    Force,
    NumProcesses,
    Output,
    Partial,
    draw_benchmark,
)
from eval.picture_folder import read_generation
from eval.picture_scorers import ScoreCache, load_scorer
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult, write_report
from mllm.console import announce, out, progress_bar, quiet_libraries, say, user_errors
from unitok.files import check_output

COMMAND = "python -m eval.genai_bench"
BENCHMARK = "genai_bench"
CACHE_FILE = "picture_scores.json"  # beside the pictures
HEADLINE = "advanced"  # what the papers call Overall

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True, help=__doc__
)

Prompts = Annotated[Path, typer.Argument(help="prompts.txt, one prompt a line")]
Skills = Annotated[Path, typer.Argument(help="genai_skills.json, the prompts of each skill")]
Unofficial = Annotated[
    bool, typer.Option("--unofficial", help="Take other prompts or skills; the report says so")
]


def picture_path(folder: Path, number: int) -> Path:
    """Where the picture of prompt `number`, from 1, lies."""
    return folder / f"{number:05d}.jpg"


@dataclass(frozen=True)
class ScoreRequest:
    """What to score, and where the scores come from: a file or a scorer that sees the pictures."""

    prompts_file: Path
    skills_file: Path
    pictures: Path | None = None
    scores_file: Path | None = None
    scorer: str | None = None
    is_partial: bool = False
    is_official: bool = True

    def __post_init__(self) -> None:
        if (self.scores_file is None) == (self.scorer is None):
            raise ValueError("give either --scores FILE or --scorer MODULE:NAME")
        if self.scorer is not None and self.pictures is None:
            raise ValueError("a scorer looks at pictures; name their folder with --pictures")


def score(request: ScoreRequest) -> BenchmarkReport:
    """Read or make the score of every prompt, and add them up by skill."""
    prompts = read_prompts(request.prompts_file, official=request.is_official)
    skills = read_skills(
        request.skills_file, num_prompts=len(prompts), official=request.is_official
    )
    pictures = request.pictures
    generation = None if pictures is None else read_generation(pictures, prompts)
    scorer, scores = find_scores(request, prompts)
    settings = {
        "scorer": scorer,
        "prompts_sha256": sha256_of(request.prompts_file),
        "skills_sha256": sha256_of(request.skills_file),
        "official_files": request.is_official,
        "generation": generation,
    }
    return build_report(prompts, skills, scores, settings=settings)


def find_scores(request: ScoreRequest, prompts: Sequence[str]) -> tuple[str, dict[int, float]]:
    """Who scored, and the score of every prompt by its number."""
    if request.scores_file is not None:
        scores = read_scores(request.scores_file, num_prompts=len(prompts))
        what = f"scores in {request.scores_file}"
        check_complete(scores, len(prompts), what=what, is_partial=request.is_partial)
        return f"unknown, scores from {request.scores_file.name}", scores
    assert request.pictures is not None
    assert request.scorer is not None
    numbers = [n for n in range(1, len(prompts) + 1) if picture_path(request.pictures, n).is_file()]
    what = f"pictures in {request.pictures}"
    check_complete(numbers, len(prompts), what=what, is_partial=request.is_partial)
    announce(f"loading scorer {request.scorer}")
    scorer = load_scorer(request.scorer)
    cache = ScoreCache(request.pictures / CACHE_FILE, scorer)
    scores = {}
    with progress_bar("scoring") as report:
        for number in numbers:
            path = picture_path(request.pictures, number)
            scores[number] = cache.score(path, prompts[number - 1])
            report(len(scores), len(numbers))
    return scorer.name, scores


def check_complete(
    numbers: Collection[int], num_prompts: int, *, what: str, is_partial: bool
) -> None:
    """ValueError if prompts are missing, unless that is allowed and some are there."""
    missing = sorted(set(range(1, num_prompts + 1)).difference(numbers))
    if missing and not (is_partial and numbers):
        raise ValueError(
            f"{len(missing)} of {num_prompts} {what} are missing, first of prompt {missing[0]}; "
            "make them, or score what is there with --partial"
        )


def build_report(
    prompts: Sequence[str],
    skills: Mapping[str, Sequence[int]],
    scores: Mapping[int, float],
    *,
    settings: Mapping[str, Any],
) -> BenchmarkReport:
    """Scores by skill; a run that lacks some is labelled as partial."""
    by_tag = score_skills(scores, skills)
    stds = {tag: defined(each.std) for tag, each in by_tag.items()}
    num_missing = len(prompts) - len(scores)
    notes = []
    if num_missing:
        notes.append(f"partial: {len(scores)} of {len(prompts)} prompts have a score")
    if not settings["official_files"]:
        notes.append("prompts or skills are not the official files: no published score compares")
    return BenchmarkReport(
        benchmark=BENCHMARK,
        metrics={tag: defined(by_tag[tag].mean) for tag in (HEADLINE, "basic", ALL)},
        counts=ItemCounts(num_items=len(scores), num_missing=num_missing),
        groups=tuple(
            GroupScore(tag, each.num_prompts, defined(each.mean)) for tag, each in by_tag.items()
        ),
        items=tuple(item_results(prompts, skills, scores)),
        settings={**settings, "tables": printed_tables(by_tag), "std": stds},
        notes=tuple(notes),
    )


def item_results(
    prompts: Sequence[str], skills: Mapping[str, Sequence[int]], scores: Mapping[int, float]
) -> Iterator[ItemResult]:
    """Every prompt with its skills, and its score if it has one."""
    for number, prompt in enumerate(prompts, start=1):
        tags = [tag for tag, numbers in skills.items() if number in numbers]
        details = {"prompt": prompt, "tags": tags}
        yield ItemResult(str(number), scores.get(number), details=details)


def defined(value: float) -> float | None:
    """For reports: None where too few prompts have a score."""
    return None if math.isnan(value) else value


def print_tables(report: BenchmarkReport) -> None:
    """The tables of skills as UniTok prints them; notes beside them."""
    num_prompts = {group.group: group.num_items for group in report.groups}
    for name, rows in report.settings["tables"].items():
        table = Table(title=f"{report.benchmark}, {name}")
        table.add_column("skill")
        table.add_column("prompts", justify="right")
        table.add_column("score", justify="right")
        for tag in TABLES[name]:
            table.add_row(tag, str(num_prompts[tag]), rows[tag])
        out.print(table)
    for note in report.notes:
        announce(note)


@app.command(
    "generate",
    help="Draw a picture of each prompt; started again, it goes on.\n\n"
    f"Example: {COMMAND} generate prompts.txt -o genai --model nano",
)
@with_drawer_options
def generate_command(
    prompts: Prompts,
    output: Output,
    drawer: Drawer,
    num_processes: NumProcesses = 1,
    unofficial: Unofficial = False,
) -> None:
    quiet_libraries()
    with user_errors():
        lines = read_prompts(prompts, official=not unofficial)
        paths = [picture_path(output, number) for number in range(1, len(lines) + 1)]
        draw_benchmark(
            drawer, lines, paths, folder=output, benchmark=BENCHMARK, num_processes=num_processes
        )


@app.command(
    "score",
    help="Score pictures, or read their scores, and print them by skill.\n\n"
    f"Example: {COMMAND} score prompts.txt genai_skills.json --scores scores.json -o report.json",
)
def score_command(
    prompts: Prompts,
    skills: Skills,
    output: Annotated[Path, typer.Option("--output", "-o", help="Report to write, JSON")],
    pictures: Annotated[Path | None, typer.Option(help="Folder with 00001.jpg, ...")] = None,
    scores: Annotated[Path | None, typer.Option(help="JSON: prompt number to score")] = None,
    scorer: Annotated[
        str | None, typer.Option(help="module:name, such as eval.picture_scorers:ClipFlanT5")
    ] = None,
    partial: Partial = False,
    unofficial: Unofficial = False,
    force: Force = False,
) -> None:
    quiet_libraries()
    with user_errors():
        check_output(output, force=force)
        request = ScoreRequest(
            prompts, skills, pictures, scores, scorer, partial, is_official=not unofficial
        )
        report = score(request)
        write_report(report, output)
    print_tables(report)
    say(f"scored by {report.settings['scorer']}; everything is in {output}")


if __name__ == "__main__":
    app()
