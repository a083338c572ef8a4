"""A benchmark of a few questions in a folder: right is an answer of even length."""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from eval.answer_files import AnswerLine, BenchmarkQuestion, read_json_lines
from eval.report import BenchmarkReport, ItemCounts
from eval.scoring import MissingAnswers

NAME = "tiny"
MAX_NEW_TOKENS = 6
SUBMISSION = "upload.json"


def write_data(folder: Path, num_questions: int) -> None:
    """Questions with the same picture, another one or none; two questions share their id."""
    folder.mkdir()
    Image.new("RGB", (40, 40), "red").save(folder / "0.png")
    Image.linear_gradient("L").save(folder / "1.png")
    lines = [
        {"id": number // 2, "text": f"is the star {'left ' * (number % 5)}of {number}?"}
        for number in range(num_questions)
    ]
    (folder / "questions.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    records = [record for _, record in read_json_lines(data / "questions.jsonl")]
    pictures = [data / "0.png", data / "1.png", None]
    return [
        BenchmarkQuestion(
            record["id"],
            record["text"],
            pictures[number % 3],
            asked=f"{record['text']} say it.",
        )
        for number, record in enumerate(records)
    ]


def score_answers(answers: Sequence[AnswerLine], data: Path, *, parity: int = 0) -> BenchmarkReport:
    questions = load_questions(data)
    if len(answers) < len(questions):
        raise MissingAnswers(f"question {questions[len(answers)].question_id} has no answer")
    right = sum(len(answer.text) % 2 == parity for answer in answers)
    return BenchmarkReport(
        NAME,
        {"accuracy": 100 * right / len(questions)},
        ItemCounts(len(questions)),
        settings={"parity": parity},
    )


def write_submission(
    answers: Sequence[AnswerLine], data: Path, path: Path, *, parity: int = 0
) -> None:
    path.write_text(json.dumps([parity, *(answer.text for answer in answers)]))
