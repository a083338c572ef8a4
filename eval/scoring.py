"""What the scorers of understanding benchmarks share: files, counts, and their commands.

Annotations and questions lie where LLaVA-1.5's evaluation bundle puts them: a folder DATA (in
LLaVA's own checkout `playground/data/eval`) with one folder for each benchmark.
"""

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.answer_files import (
    AnswerLine,
    BenchmarkQuestion,
    QuestionId,
    read_answers,
    read_json_lines,
    repeated,
)
from eval.report import BenchmarkReport, ItemCounts, ItemResult, print_report, write_report
from mllm.console import user_errors
from unitok.files import check_output

BUNDLE = "LLaVA's eval.zip (linked in docs/Evaluation.md of haotian-liu/LLaVA)"
SUFFIX = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."

AnswersOption = Annotated[
    Path, typer.Option("--answers", help="Answer file: one JSON object a line")
]
DataOption = Annotated[
    Path,
    typer.Option(
        "--annotations", help="Folder with LLaVA's evaluation bundle, playground/data/eval"
    ),
]
OutputOption = Annotated[Path | None, typer.Option("-o", help="Also store the report as JSON")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what is there")]


def run_scorer(
    score: Callable[[], BenchmarkReport], *, output: Path | None, force: bool = False
) -> None:
    """The body of a scorer's command: score, store if asked to, print."""
    with user_errors():
        if output is not None:
            check_output(output, force=force)
        report = score()
        if output is not None:
            write_report(report, output)
        print_report(report)


def scorer_app(
    module: str, score: Callable[[Sequence[AnswerLine], Path], BenchmarkReport]
) -> typer.Typer:
    """The command of a benchmark that has no options of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command(
        help=f"Score answers.\n\nExample: python -m eval.{module} --answers {module}.jsonl "
        "--annotations playground/data/eval -o results.json"
    )
    def main(
        answers: AnswersOption,
        annotations: DataOption,
        output: OutputOption = None,
        force: ForceOption = False,
    ) -> None:
        run_scorer(lambda: score(read_answers(answers), annotations), output=output, force=force)

    return app


def need_file(path: Path, source: str) -> Path:
    """`path`, or an error that says where to get the file; `source` completes "get it from"."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; get it from {source} and put it there")
    return path


def need_folder(path: Path, source: str) -> Path:
    """Like `need_file`, for a folder."""
    if not path.is_dir():
        raise NotADirectoryError(
            f"{path} is no folder; get its files from {source} and put them there"
        )
    return path


def read_questions(path: Path, image_folder: Path, *, source: str) -> list[BenchmarkQuestion]:
    """Questions of a file in LLaVA's format, whether or not their pictures are there."""
    return [
        parse_question(record, image_folder, place=place)
        for place, record in read_json_lines(need_file(path, source))
    ]


def parse_question(record: dict[str, Any], image_folder: Path, *, place: str) -> BenchmarkQuestion:
    """One line of a question file; ValueError that names the place if a field is missing."""
    for key, kinds in (("question_id", (int, str)), ("text", (str,)), ("image", (str,))):
        if not isinstance(record.get(key), kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{place}: {key} must be {names}, got {record.get(key)!r}")
    return BenchmarkQuestion(
        record["question_id"],
        record["text"],
        image=image_folder / record["image"],
        category=record.get("category"),
    )


def check_pictures(
    questions: Iterable[BenchmarkQuestion], *, source: str
) -> list[BenchmarkQuestion]:
    """The questions, if the file of every picture exists."""
    checked = list(questions)
    for question in checked:
        if isinstance(question.image, Path) and not question.image.is_file():
            raise FileNotFoundError(
                f"{question.image}, the picture of question {question.question_id}, does not "
                f"exist; get the pictures from {source} and put them there"
            )
    return checked


def read_json_list(path: Path) -> list[Any]:
    """The list in a JSON file; ValueError that names the file for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}); download it again") from None
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a JSON list, got {type(content).__name__}")
    return content


def latest_answers(answers: Iterable[AnswerLine]) -> dict[QuestionId, AnswerLine]:
    """The answers by question: of several to one question the last, as in official scripts."""
    return {answer.question_id: answer for answer in answers}


def count_items(
    expected: Iterable[Hashable], answered: Sequence[Any], *, num_unparsable: int = 0
) -> ItemCounts:
    """How the ids of the answers fit the ids that a benchmark expects."""
    ids, given = set(expected), set(answered)
    return ItemCounts(
        num_items=len(ids),
        num_missing=len(ids - given),
        num_duplicate=len(answered) - len(given),
        num_extra=len(given - ids),
        num_unparsable=num_unparsable,
    )


def duplicate_notes(answers: Sequence[AnswerLine]) -> tuple[str, ...]:
    """Says which of several answers to one question counts, where there are any."""
    twice = repeated([answer.question_id for answer in answers])
    if not twice:
        return ()
    return (f"several answers to one question ({listed(twice)}): the last one counts, as usual",)


def percentage(part: float, whole: int) -> float | None:
    """A share as percent in the official order of operations; None of nothing."""
    return part / whole * 100 if whole else None


def accuracy(items: Sequence[ItemResult]) -> float | None:
    """Percent of the items that are right; None of no items."""
    return percentage(sum(item.score == 1 for item in items), len(items))


def count_unread(items: Iterable[ItemResult]) -> int:
    """How many answers there are in which nothing could be read."""
    return sum(
        item.details["read_as"] is None and item.details["answer"] is not None for item in items
    )


def running_sum(values: Iterable[float]) -> float:
    """The values added one after another, as official scripts do.

    Python's own `sum` makes up for rounding since 3.12, and may end with another last digit.
    """
    total = 0.0
    for value in values:
        total += value
    return total


def listed(things: Iterable[Any], *, most: int = 3) -> str:
    """The first few things as text, and how many more there are."""
    texts = [str(thing) for thing in things]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
