"""ScienceQA: multiple choice with or without a picture (LLaVA's scorer).

Files below DATA:

    scienceqa/llava_test_CQM-A.json     LLaVA's questions: a list of id, image and conversations
    scienceqa/images/test/              the pictures, <id>/image.png
    scienceqa/problems.json             choices and right answer of every problem
    scienceqa/pid_splits.json           which problems are in which split
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.answer_files import AnswerLine, BenchmarkQuestion
from eval.benchmark_data import (
    BUNDLE,
    LETTER,
    check_fields,
    check_pictures,
    need_file,
    read_json_list,
    text_list,
)
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scorer_commands import scorer_app
from eval.scoring import (
    accuracy,
    count_items,
    count_unread,
    duplicate_notes,
    latest_answers,
)
from unitok.files import read_json

NAME = "scienceqa"
MAX_NEW_TOKENS = 1024
LETTERS = "ABCDE"
IMAGE_MARK = "<image>"
SOURCE = "data/scienceqa of lupantech/ScienceQA"
# Any character may follow the letter, but one must.
_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def parse_answer(text: str) -> str | None:
    """The letter that an answer gives, or None; it may lie beyond the problem's choices."""
    if len(text) == 1 and text in LETTERS:
        return text
    if text[:1] in LETTERS and text[1:3] == ". ":
        return text[0]
    sentences = _SENTENCE.findall(text)
    return sentences[0] if len(sentences) == 1 else None


def choice_index(letter: str | None, num_choices: int) -> int:
    """The place of a letter among a problem's choices, -1 if it is none of them."""
    choices = LETTERS[:num_choices]
    return choices.index(letter) if letter is not None and letter in choices else -1


def score_problem(
    problem: Mapping[str, Any], answer: AnswerLine | None, *, problem_id: str
) -> ItemResult:
    """One problem; without an answer it is wrong and counts as one without a picture."""
    place = f"problems.json, problem {problem_id}"
    check_fields(problem, {"answer": int, "choices": list}, place=place)
    right = problem["answer"]
    num_choices = min(len(LETTERS), len(problem["choices"]))
    if not 0 <= right < num_choices:
        raise ValueError(
            f"{place}: the right answer must be the place of one of {num_choices} choices, got "
            f"{right!r}"
        )
    letter = None if answer is None else parse_answer(answer.text)
    index = choice_index(letter, len(problem["choices"]))
    has_picture = answer is not None and IMAGE_MARK in answer.prompt
    return ItemResult(
        item_id=problem_id,
        score=float(index == right),
        group="with picture" if has_picture else "text only",
        details={
            "answer": None if answer is None else answer.text,
            "read_as": letter,
            "choice": index,
            "expected": LETTERS[right],
        },
    )


def score_problems(
    problems: Mapping[str, Mapping[str, Any]],
    split: Sequence[str],
    *,
    answers: Sequence[AnswerLine],
) -> list[ItemResult]:
    """Every problem of a split, in its order; ValueError for one that has no data."""
    by_id = latest_answers(answers)
    for problem_id in split:
        if problem_id not in problems:
            raise ValueError(f"problems.json has no problem {problem_id}; download it again")
    # An id given twice counts once, as in the official dictionary.
    return [
        score_problem(problems[problem_id], by_id.get(problem_id), problem_id=problem_id)
        for problem_id in dict.fromkeys(split)
    ]


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """The questions of the test split with their pictures, where they have one."""
    folder = data / "scienceqa"
    path = need_file(folder / "llava_test_CQM-A.json", BUNDLE)
    questions = [
        _parse_question(record, folder / "images" / "test", place=f"{path}, entry {number}")
        for number, record in enumerate(read_json_list(path), start=1)
    ]
    if not questions:
        raise ValueError(f"{path} holds no questions; get it again from {BUNDLE}")
    return check_pictures(questions, source=SOURCE)


def _parse_question(record: Any, image_folder: Path, *, place: str) -> BenchmarkQuestion:
    match record:
        case {"id": str(problem_id), "conversations": [{"value": str(value)}, *_]}:
            asked = value.replace(IMAGE_MARK, "").strip()
        case _:
            raise ValueError(f"{place}: expected id and conversations, got {record!r}")
    asked = asked if asked.endswith(LETTER) else asked + LETTER
    if "image" not in record:
        return BenchmarkQuestion(problem_id, asked)
    check_fields(record, {"image": str}, place=place)
    # Official: the stored prompt keeps the mark, by which the scorer knows a picture was shown.
    return BenchmarkQuestion(
        problem_id, f"{IMAGE_MARK}\n{asked}", image=image_folder / record["image"], asked=asked
    )


def score_answers(
    answers: Sequence[AnswerLine],
    data: Path,
    *,
    split: str = "test",
    answered_only: bool = False,
) -> BenchmarkReport:
    """Score answers to the problems of a split.

    `answered_only` leaves out the problems without an answer, which are wrong otherwise.
    """
    folder = data / "scienceqa"
    asked = _read_split(folder / "pid_splits.json", split)
    problems = read_json(need_file(folder / "problems.json", SOURCE))
    items = [
        item
        for item in score_problems(problems, asked, answers=answers)
        if item.details["answer"] is not None or not answered_only
    ]
    groups = [_group_score(items, name) for name in ("with picture", "text only")]
    notes = duplicate_notes(answers)
    if not groups[0].num_items:
        notes += (
            f"no answer's prompt has {IMAGE_MARK}, the official sign of a picture: "
            "img_accuracy cannot be computed",
        )
    return BenchmarkReport(
        benchmark=NAME,
        metrics={"accuracy": accuracy(items), "img_accuracy": groups[0].score},
        counts=replace(
            count_items(
                dict.fromkeys(asked),
                [answer.question_id for answer in answers],
                num_unparsable=count_unread(items),
            ),
            num_items=len(items),
        ),
        groups=tuple(groups),
        items=tuple(items),
        settings={"split": split, "answered_only": answered_only},
        notes=notes,
    )


def _read_split(path: Path, split: str) -> tuple[str, ...]:
    """The ids of the problems in a split."""
    splits = read_json(need_file(path, SOURCE))
    if split not in splits:
        known = ", ".join(splits) or "some, which it lacks"
        raise ValueError(f"{path} has no split {split!r}; expected one of {known}")
    problem_ids = text_list(splits, split, place=str(path))
    if not problem_ids:
        raise ValueError(f"{path} holds no problems of {split}; get it again from {SOURCE}")
    return problem_ids


def _group_score(items: Sequence[ItemResult], group: str) -> GroupScore:
    members = [item for item in items if item.group == group]
    return GroupScore(group, num_items=len(members), score=accuracy(members))


app = scorer_app(NAME, score_answers)


if __name__ == "__main__":
    app()
