"""MME: two yes/no questions about each picture, 14 subtasks, two sums (official calculation).

Files below DATA:

    MME/llava_mme.jsonl                    LLaVA's 2,374 questions
    MME/MME_Benchmark_release_version/     the official release: a folder for each subtask with
                                           pictures and NAME.txt (question TAB answer), or with
                                           images/ and questions_answers_YN/NAME.txt

`--answers` takes an answer file or a folder for the official tool; `convert` makes the second of
the first.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from eval.answer_files import AnswerLine, BenchmarkQuestion, read_answers
from eval.benchmark_data import BUNDLE, check_pictures, read_questions
from eval.mme_results import (
    ALL_SUBTASKS,
    RELEASE_SOURCE,
    SUBTASKS,
    Row,
    convert_answers,
    group_total,
    one_line,
    parse_answer,
    question_key,
    read_results,
    read_truth,
    results_text,
    score_subtask,
)
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult
from eval.scorer_commands import (
    AnswersOption,
    DataOption,
    ForceOption,
    OutputOption,
    run_scorer,
)
from eval.scoring import count_items, listed
from mllm.console import say, user_errors
from unitok.files import atomic_write

NAME = "mme"
MAX_NEW_TOKENS = 128
SUBMISSION = "submission"  # a folder
RELEASE = "MME_Benchmark_release_version"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """The questions with their pictures; two to a picture share its id."""
    folder = data / "MME"
    questions = read_questions(folder / "llava_mme.jsonl", folder / RELEASE, source=BUNDLE)
    return check_pictures(questions, source=RELEASE_SOURCE)


def write_submission(answers: Sequence[AnswerLine], data: Path, path: Path) -> None:
    """Write the folder that the official tool reads, one text file for each category.

    A new folder gets its name once it is whole.
    """
    converted = convert_answers(answers, read_truth(data / "MME" / RELEASE))
    folder = path if path.exists() else path.with_name(f".{path.name}")
    folder.mkdir(exist_ok=True)
    for category, rows in converted.items():
        with atomic_write(folder / f"{category}.txt") as temporary:
            temporary.write_text(results_text(rows), encoding="utf-8")
    folder.rename(path)


def score_answers(answers: Sequence[AnswerLine], data: Path) -> BenchmarkReport:
    """Score LLaVA answers; a subtask that is not answered in pairs is left without a score."""
    truth = read_truth(data / "MME" / RELEASE)
    expected = [key for key in truth if key[0] in ALL_SUBTASKS]
    rows = convert_answers(answers, truth)
    num_broken = sum(one_line(answer.text) != answer.text for answer in answers)
    notes = [f"tabs and ends of lines in {num_broken} answers became blanks"] if num_broken else []
    counts = count_items(expected, [question_key(answer, truth) for answer in answers])
    return build_report(rows, counts, notes=notes)


def score_results(folder: Path) -> BenchmarkReport:
    """Score a folder in the format of the official tool."""
    rows = read_results(folder)
    for subtask, lines in rows.items():
        score_subtask(lines, subtask)  # whatever stops the official tool stops us
    return build_report(rows, ItemCounts(num_items=sum(map(len, rows.values()))))


def build_report(
    rows: Mapping[str, Sequence[Row]], counts: ItemCounts, *, notes: Sequence[str] = ()
) -> BenchmarkReport:
    """Both sums, never one called MME: Perception is what most papers quote."""
    scores = {
        name: score_subtask(rows[name], name)
        for name in ALL_SUBTASKS
        if rows.get(name) and len(rows[name]) % 2 == 0
    }
    return BenchmarkReport(
        benchmark=NAME,
        metrics={group.lower(): group_total(scores, group) for group in SUBTASKS},
        counts=replace(counts, num_unparsable=sum(score.num_other for score in scores.values())),
        groups=tuple(
            GroupScore(
                name,
                num_items=len(rows.get(name, ())),
                score=scores[name].score if name in scores else None,
            )
            for name in ALL_SUBTASKS
        ),
        items=tuple(item for name in scores for item in _items(name, rows[name])),
        notes=(*notes, *_unscored_notes(rows), *_pair_notes(scores, rows)),
    )


def _unscored_notes(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    unanswered = [name for name in ALL_SUBTASKS if not rows.get(name)]
    odd = [name for name in ALL_SUBTASKS if len(rows.get(name, ())) % 2]
    notes = [f"no answers to {', '.join(unanswered)}: not scored"] if unanswered else []
    notes += [
        f"{name}: an odd number of answers ({_lonely(rows[name])}): not scored" for name in odd
    ]
    if len(notes):
        notes.append("a sum needs all of its subtasks; this run is not complete")
    return notes


def _lonely(rows: Sequence[Row]) -> str:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.image] = counts.get(row.image, 0) + 1
    return "not two about " + listed(image for image, count in counts.items() if count != 2)


def _pair_notes(scores: Iterable[str], rows: Mapping[str, Sequence[Row]]) -> list[str]:
    return [
        f"{name}: answers about different pictures stand where a pair is expected, first "
        f"{strangers[0]}; pairs are taken by position, as officially"
        for name in scores
        if (
            strangers := [
                f"{first.image} and {second.image}"
                for first, second in zip(rows[name][::2], rows[name][1::2], strict=True)
                if first.image != second.image
            ]
        )
    ]


def _items(subtask: str, rows: Sequence[Row]) -> list[ItemResult]:
    return [
        ItemResult(
            item_id=f"{subtask}/{row.image}: {row.question}",
            score=float(parse_answer(row.answer) == row.expected.lower()),
            group=subtask,
            details={
                "answer": row.answer,
                "read_as": parse_answer(row.answer),
                "expected": row.expected,
            },
        )
        for row in rows
    ]


@app.callback(
    invoke_without_command=True,
    help="Score MME answers.\n\nExample: python -m eval.mme --answers mme.jsonl "
    "--data playground/data/eval -o results.json",
)
def main(
    context: typer.Context,
    answers: Annotated[
        Path | None,
        typer.Option("--answers", help="Answer file, or a folder for the official tool"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="LLaVA's evaluation bundle; not for a folder")
    ] = None,
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    if context.invoked_subcommand is None:
        run_scorer(lambda: _score_path(answers, data), output=output, force=force)


def _score_path(answers: Path | None, data: Path | None) -> BenchmarkReport:
    if answers is None:
        raise ValueError("MME needs --answers: an answer file, or a folder for the official tool")
    if answers.is_dir():
        return score_results(answers)
    if data is None:
        raise ValueError("an answer file needs --data, LLaVA's evaluation bundle")
    return score_answers(read_answers(answers), data)


@app.command(
    help="Write the folder that the official tool reads.\n\nExample: python -m eval.mme convert "
    "--answers mme.jsonl --data playground/data/eval -o mme_results"
)
def convert(
    answers: AnswersOption,
    data: DataOption,
    output: Annotated[Path, typer.Option("-o", help="Folder to write to")],
    force: ForceOption = False,
) -> None:
    with user_errors():
        if output.exists() and not force:
            raise FileExistsError(f"{output} exists already; pass --force to write into it")
        write_submission(read_answers(answers), data, output)
    say(f"wrote {output}")


if __name__ == "__main__":
    app()
