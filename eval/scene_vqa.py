"""Questions about held-out drawn scenes as a benchmark: it needs no data, and nano can answer it.

The questions are those of `python -m eval.nano`; an answer is right if it is the expected word.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from eval.answer_files import AnswerLine, BenchmarkQuestion, repeated
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult
from eval.scene_questions import KINDS, Question
from eval.scene_scores import MAX_ANSWER_TOKENS, held_out_questions, is_right
from eval.scenes import Scene, render
from eval.scoring import accuracy

NAME = "scenes"
NEEDS_DATA = False
MAX_NEW_TOKENS = MAX_ANSWER_TOKENS
NUM_PER_KIND = 170
PICTURE_SIZE = 64  # nano's own


def load_questions(data: Path | None = None) -> list[BenchmarkQuestion]:
    """All questions with their pictures, one of each kind in turn; numbered from 0."""
    return [
        BenchmarkQuestion(
            number,
            question.question,
            Image.fromarray(render(scene, PICTURE_SIZE)),
            category=question.kind,
        )
        for number, (scene, question) in enumerate(_all_questions())
    ]


def score_answers(
    answers: Sequence[AnswerLine], data: Path | None = None, *, answered_only: bool = False
) -> BenchmarkReport:
    """Percentage of right answers, in all and by kind.

    Of several answers to one question the last counts. A question without an answer is wrong;
    `answered_only` leaves it out.
    """
    questions = [question for _, question in _all_questions()]
    texts: dict[Any, str] = {answer.question_id: answer.text for answer in answers}
    items = tuple(
        _judge(number, question, texts.get(number))
        for number, question in enumerate(questions)
        if number in texts or not answered_only
    )
    by_kind = {kind: [item for item in items if item.group == kind] for kind in KINDS}
    return BenchmarkReport(
        NAME,
        {"accuracy": accuracy(items)},
        ItemCounts(
            len(items),
            num_missing=sum(number not in texts for number in range(len(questions))),
            num_duplicate=len(repeated([answer.question_id for answer in answers])),
            num_extra=sum(key not in range(len(questions)) for key in texts),
        ),
        tuple(GroupScore(kind, len(own), accuracy(own)) for kind, own in by_kind.items() if own),
        items,
        settings={"answered_only": answered_only},
    )


@cache
def _all_questions() -> tuple[tuple[Scene, Question], ...]:
    """One of each kind after the other, so that the first ones are a fair sample.

    Finding scenes that allow the drawn answers takes seconds.
    """
    by_kind = held_out_questions(NUM_PER_KIND)
    return tuple(item for index in range(NUM_PER_KIND) for item in by_kind[index::NUM_PER_KIND])


def _judge(number: int, question: Question, text: str | None) -> ItemResult:
    right = text is not None and is_right(text, question)
    details = {"question": question.question, "answer": text, "expected": question.answer}
    return ItemResult(str(number), float(right), question.kind, details)
