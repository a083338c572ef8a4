"""MM-Vet: open questions, graded by a language model and averaged by capability.

Files below DATA (mm-vet.zip of yuweihao/MM-Vet unpacks to the folder):

    mm-vet/llava-mm-vet.jsonl         LLaVA's 218 questions
    mm-vet/images/                    the pictures
    mm-vet/mm-vet.json                official metadata: question, answer, capability
    mm-vet/mm-vet_evaluator.py        the official evaluator (or its .ipynb), for the grader's
                                      examples

Without a grader, and without stored grades, the benchmark is not scored. Scores of different
graders do not compare; the official one is gpt-4-0613.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from eval.answer_files import AnswerLine, BenchmarkQuestion, QuestionId, read_answers
from eval.benchmark_data import BUNDLE, check_pictures, need_file, read_questions
from eval.mmvet_averages import CAPABILITIES, average_grades, set_name
from eval.mmvet_grader import (
    OFFICIAL_GRADER,
    TABLE_SHA256,
    EndpointGrader,
    GradeBook,
    Grader,
    grade_predictions,
    grading_message,
    parse_grade,
    read_book,
    read_table,
)
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult
from eval.scorer_commands import DataOption, ForceOption, OutputOption, run_scorer
from eval.scoring import MissingAnswers, count_items, duplicate_notes, listed
from unitok.files import atomic_write, read_json

NAME = "mmvet"
MAX_NEW_TOKENS = 1024
SOURCE = "mm-vet.zip (releases of yuweihao/MM-Vet)"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Record:
    """What the metadata says about one question."""

    question: str
    truth: str
    capabilities: tuple[str, ...]


def read_records(data: Path) -> dict[str, Record]:
    """The official metadata by id, v1_0 and so on."""
    path = need_file(data / "mm-vet" / "mm-vet.json", SOURCE)
    records = {}
    for key, record in read_json(path).items():
        match record:
            case {"question": str(question), "answer": str(truth), "capability": [*names]} if all(
                name in CAPABILITIES for name in names
            ):
                records[key] = Record(question, truth, tuple(names))
            case _:
                raise ValueError(
                    f"{path}, {key}: expected question, answer and a list capability of "
                    f"{', '.join(CAPABILITIES)}, got {record!r}"
                )
    if not records:
        raise ValueError(f"{path} holds no questions; get it again from {SOURCE}")
    return records


def official_id(question_id: QuestionId) -> str:
    """`v1_n` for LLaVA's question n."""
    text = str(question_id)
    return text if text.startswith("v1_") else f"v1_{text}"


def predictions_of(answers: Sequence[AnswerLine]) -> dict[str, str]:
    """The official predictions: text by id; of several answers to a question the last."""
    return {official_id(answer.question_id): answer.text for answer in answers}


def read_any_answers(path: Path) -> list[AnswerLine]:
    """Answers from an answer file or from an official predictions file (.json)."""
    if path.suffix != ".json":
        return read_answers(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name answers or official predictions")
    predictions = read_json(path)
    for key, text in predictions.items():
        if not isinstance(text, str):
            raise ValueError(f"{path}, {key}: a prediction must be text, got {text!r}")
    return [AnswerLine(key, text) for key, text in predictions.items()]


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """The questions with their pictures."""
    folder = data / "mm-vet"
    questions = read_questions(folder / "llava-mm-vet.jsonl", folder / "images", source=BUNDLE)
    return check_pictures(questions, source=SOURCE)


def write_submission(answers: Sequence[AnswerLine], data: Path, path: Path) -> None:
    """Write the official predictions file."""
    del data  # every benchmark's function has it; here the answers are enough
    with atomic_write(path) as temporary:
        text = json.dumps(predictions_of(answers), indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def score_answers(
    answers: Sequence[AnswerLine],
    data: Path,
    *,
    grader: Grader | None = None,
    grades: Path | None = None,
    num_runs: int = 1,
) -> BenchmarkReport:
    """Score answers from the grades stored in `grades`, after the grader gave what it lacks."""
    records = read_records(data)
    predictions = predictions_of(answers)
    counts = count_items(records, [official_id(answer.question_id) for answer in answers])
    asked = {key: predictions[key] for key in records if key in predictions}
    book = _open_book(grader, grades)
    if grader is not None and grades is not None:
        _check_complete(records, predictions)
        table = read_table(data / "mm-vet")
        grade_predictions(
            {key: _message(table, records[key], asked[key]) for key in asked},
            asked,
            grader=grader,
            book=book,
            path=grades,
            num_runs=num_runs,
        )
    notes = duplicate_notes(answers)
    if counts.num_missing or not book.is_complete(asked, num_runs):
        return _unscored_report(asked, counts=counts, notes=notes)
    return _scored_report(records, book, counts=counts, num_runs=num_runs, notes=notes)


def _message(table: str, record: Record, prediction: str) -> str:
    return grading_message(table, record.question, truth=record.truth, prediction=prediction)


def _check_complete(records: Mapping[str, Record], predictions: Mapping[str, str]) -> None:
    missing = [key for key in records if key not in predictions]
    if missing:
        raise MissingAnswers(
            f"MM-Vet grades complete runs only, got no answer to {listed(missing)}; answer every "
            "question first"
        )


def _open_book(grader: Grader | None, grades: Path | None) -> GradeBook:
    if grader is not None and grades is None:
        raise ValueError("a grader needs a file to store its grades in, got none; name one")
    if grades is None or not grades.is_file():
        return GradeBook("none" if grader is None else grader.name)
    book = read_book(grades)
    if grader is not None and book.grader != grader.name:
        raise ValueError(
            f"{grades} holds grades of {book.grader}, not of {grader.name}, and these do not "
            "mix; name another file for the grades"
        )
    return book


def _unscored_report(
    predictions: Mapping[str, str], *, counts: ItemCounts, notes: tuple[str, ...]
) -> BenchmarkReport:
    reason = (
        "some questions have no answer"
        if counts.num_missing
        else "not every answer has its grades; name a grader, an OpenAI-compatible endpoint"
    )
    return BenchmarkReport(
        benchmark=NAME,
        metrics=dict.fromkeys(("total", *CAPABILITIES, "std")),
        counts=counts,
        items=tuple(
            ItemResult(key, score=None, details={"answer": text})
            for key, text in predictions.items()
        ),
        notes=(*notes, f"not scored: {reason}"),
    )


def _scored_report(
    records: Mapping[str, Record],
    book: GradeBook,
    *,
    counts: ItemCounts,
    num_runs: int,
    notes: tuple[str, ...],
) -> BenchmarkReport:
    grades = {key: book.grades[key] for key in records}
    scores = {key: item.score[:num_runs] for key, item in grades.items()}
    result = average_grades({key: records[key].capabilities for key in records}, scores)
    sizes = Counter(set_name(record.capabilities) for record in records.values())
    num_unread = sum(
        any(parse_grade(text) is None for text in item.content[:num_runs])
        for item in grades.values()
    )
    if num_unread:
        notes += (f"no grade could be read for {num_unread} answers: they count 0, as officially",)
    if book.grader != OFFICIAL_GRADER:
        notes += (f"graded by {book.grader}: does not compare with grades of {OFFICIAL_GRADER}",)
    return BenchmarkReport(
        benchmark=NAME,
        metrics={"total": result.total, **result.by_capability, "std": result.std},
        counts=replace(counts, num_unparsable=num_unread),
        groups=tuple(
            GroupScore(name, num_items=sizes[name], score=score)
            for name, score in result.by_set.items()
        ),
        items=tuple(
            _graded_item(key, records[key], prediction=item.prediction, scores=scores[key])
            for key, item in grades.items()
        ),
        settings={
            "grader": book.grader,
            "models": sorted({model for item in grades.values() for model in item.model}),
            "num_runs": num_runs,
            "runs": list(result.runs),
            "examples_sha256": TABLE_SHA256,
        },
        notes=notes,
    )


def _graded_item(
    key: str, record: Record, *, prediction: str, scores: Sequence[float]
) -> ItemResult:
    return ItemResult(
        key,
        score=float(np.mean(scores)),
        group=set_name(record.capabilities),
        details={"answer": prediction, "expected": record.truth, "grades": list(scores)},
    )


@app.command(
    help="Grade and score MM-Vet answers.\n\nExample: python -m eval.mmvet --answers mmvet.jsonl "
    "--data playground/data/eval --grader-url https://api.openai.com/v1 "
    "--grades grades.json -o results.json"
)
def main(
    answers: Annotated[
        Path, typer.Option("--answers", help="Answer file, or official predictions (.json)")
    ],
    data: DataOption,
    grader_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible endpoint; without: not scored")
    ] = None,
    grader: Annotated[str, typer.Option(help="Model to ask for grades")] = OFFICIAL_GRADER,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable with the API key")
    ] = "OPENAI_API_KEY",
    grades: Annotated[
        Path | None, typer.Option(help="File of stored grades; asked for only what it lacks")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Grades for each answer; 5 in the paper")] = 1,
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    def score() -> BenchmarkReport:
        endpoint = (
            EndpointGrader(grader, grader_url, api_key=os.environ.get(key_variable))
            if grader_url is not None
            else None
        )
        return score_answers(
            read_any_answers(answers),
            data,
            grader=endpoint,
            grades=grades or grades_beside(output),
            num_runs=runs,
        )

    run_scorer(score, output=output, force=force)


def grades_beside(output: Path | None) -> Path | None:
    """Where grades go when no file is named: `results.json` has `results.grades.json`."""
    return None if output is None else output.with_suffix(".grades.json")


if __name__ == "__main__":
    app()
