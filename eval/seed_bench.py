"""SEED-Bench: multiple choice about pictures and video frames (LLaVA's scorer and submission).

Files below DATA:

    seed_bench/llava-seed-bench.jsonl      LLaVA's 19,242 questions
    seed_bench/SEED-Bench.json             the official annotations, with the right letters
    seed_bench/SEED-Bench-image/           the pictures
    seed_bench/SEED-Bench-video-image/     the middle frames of the videos (LLaVA's
                                           extract_video_frames.py, from its bundle)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.answer_files import AnswerLine, BenchmarkQuestion, QuestionId
from eval.benchmark_data import (
    BUNDLE,
    check_fields,
    check_pictures,
    need_file,
    read_questions,
)
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scorer_commands import scorer_app
from eval.scoring import (
    accuracy,
    count_items,
    duplicate_notes,
    latest_answers,
    listed,
)
from unitok.files import atomic_write, read_json

NAME = "seed"
MAX_NEW_TOKENS = 128
SUBMISSION = "submission.jsonl"
DATA_TYPES = ("image", "video")
SOURCE = "AILab-CVC/SEED-Bench (DATASET.md)"


@dataclass(frozen=True)
class SeedQuestion:
    """One annotated question."""

    question_id: QuestionId  # as the annotation has it
    task: str
    data_type: str
    expected: str

    @property
    def answer_id(self) -> QuestionId:
        """The id that answer lines use: a whole number wherever the text is one."""
        try:
            return int(self.question_id)
        except ValueError:
            return self.question_id


def parse_annotation(annotation: Mapping[str, Any], place: str) -> list[SeedQuestion]:
    """The questions of the official annotation; ValueError that names one without its fields."""
    check_fields(annotation, {"questions": list, "question_type": dict}, place=place)
    types, records = annotation["question_type"], annotation["questions"]
    check_fields(types, dict.fromkeys(types, int), place=f"{place}, question_type")
    if not records:
        raise ValueError(f"{place} holds no questions; get it again from {SOURCE}")
    tasks = {number: name for name, number in types.items()}
    return [
        _parse_question(record, tasks, place=f"{place}, questions[{number}]")
        for number, record in enumerate(records)
    ]


def _parse_question(
    record: Mapping[str, Any], tasks: Mapping[int, str], *, place: str
) -> SeedQuestion:
    texts = {"data_type": str, "answer": str}
    check_fields(record, {"question_id": (int, str), "question_type_id": int, **texts}, place=place)
    number = record["question_type_id"]
    if number not in tasks:
        known = ", ".join(map(str, sorted(tasks)))
        raise ValueError(
            f"{place}: question_type_id must be one of {known or 'question_type, which is empty'}, "
            f"got {number}; get the file again from {SOURCE}"
        )
    return SeedQuestion(
        record["question_id"],
        task=tasks[number],
        data_type=record["data_type"],
        expected=record["answer"],
    )


def score_questions(
    questions: Sequence[SeedQuestion], answers: Sequence[AnswerLine]
) -> list[ItemResult]:
    """Right is only the very letter; without an answer a question is wrong."""
    by_id = latest_answers(answers)
    return [_score_question(question, by_id.get(question.answer_id)) for question in questions]


def _score_question(question: SeedQuestion, answer: AnswerLine | None) -> ItemResult:
    text = None if answer is None else answer.text
    return ItemResult(
        item_id=str(question.question_id),
        score=float(text == question.expected),
        group=question.task,
        details={"answer": text, "expected": question.expected, "data_type": question.data_type},
    )


def task_scores(
    items: Sequence[ItemResult], tasks_in_order: Sequence[str]
) -> tuple[GroupScore, ...]:
    """Accuracy of each task that has questions."""
    members = {task: [item for item in items if item.group == task] for task in tasks_in_order}
    return tuple(
        GroupScore(task, num_items=len(group), score=accuracy(group))
        for task, group in members.items()
        if group
    )


def type_accuracy(items: Sequence[ItemResult], data_type: str) -> float | None:
    """Accuracy over pictures or over videos."""
    return accuracy([item for item in items if item.details["data_type"] == data_type])


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """The questions with their pictures or frames."""
    folder = data / "seed_bench"
    questions = read_questions(folder / "llava-seed-bench.jsonl", folder, source=BUNDLE)
    return check_pictures(questions, source=SOURCE)


def _read_annotation(data: Path) -> tuple[list[SeedQuestion], list[str]]:
    """The questions, and the tasks in the order of their official numbers."""
    path = need_file(data / "seed_bench" / "SEED-Bench.json", SOURCE)
    annotation = read_json(path)
    questions = parse_annotation(annotation, str(path))
    types = annotation["question_type"]
    return questions, sorted(types, key=lambda name: types[name])


def score_answers(
    answers: Sequence[AnswerLine], data: Path, *, answered_only: bool = False
) -> BenchmarkReport:
    """Score answers against the official annotations.

    `answered_only` leaves out the questions without an answer, which are wrong otherwise.
    """
    questions, tasks = _read_annotation(data)
    by_id = latest_answers(answers)
    scored = [each for each in questions if each.answer_id in by_id or not answered_only]
    items = score_questions(scored, answers)
    by_type = {f"{name}_accuracy": type_accuracy(items, name) for name in DATA_TYPES}
    counts = count_items(
        [question.answer_id for question in questions],
        [answer.question_id for answer in answers],
        num_unparsable=sum(answer.text not in ("A", "B", "C", "D") for answer in answers),
    )
    return BenchmarkReport(
        benchmark=NAME,
        metrics={"accuracy": accuracy(items), **by_type},
        counts=replace(counts, num_items=len(items)),
        groups=task_scores(items, tasks),
        items=tuple(items),
        settings={"answered_only": answered_only},
        notes=(
            *duplicate_notes(answers),
            *(
                f"{name} cannot be computed: there are no such questions"
                for name, value in by_type.items()
                if value is None
            ),
            *_id_notes(questions, answers),
        ),
    )


def _id_notes(questions: Sequence[SeedQuestion], answers: Sequence[AnswerLine]) -> list[str]:
    numbers = {str(key) for question in questions if isinstance(key := question.answer_id, int)}
    texts = [answer.question_id for answer in answers if answer.question_id in numbers]
    if not texts:
        return []
    return [
        f"numbers written as text are officially no ids of questions: {listed(texts)}; write them "
        "as numbers"
    ]


def write_submission(answers: Sequence[AnswerLine], data: Path, path: Path) -> None:
    """Write the leaderboard's file: question_id and prediction of every annotated question."""
    questions, _ = _read_annotation(data)
    by_id = latest_answers(answers)
    predictions = [
        by_id.get(question.question_id) or by_id.get(question.answer_id) for question in questions
    ]
    missing = [
        question.question_id
        for question, answer in zip(questions, predictions, strict=True)
        if answer is None
    ]
    if missing:
        raise ValueError(
            f"a SEED-Bench submission needs an answer to every question, got none to "
            f"{listed(missing)}"
        )
    lines = [
        json.dumps({"question_id": question.question_id, "prediction": answer.text})
        for question, answer in zip(questions, predictions, strict=True)
        if answer is not None
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


app = scorer_app("seed_bench", score_answers)


if __name__ == "__main__":
    app()
