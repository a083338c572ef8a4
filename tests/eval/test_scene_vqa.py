"""The drawn world as a benchmark: right answers score, others and missing ones do not."""

import numpy as np
import pytest

from eval import scene_vqa
from eval.answer_files import AnswerLine, BenchmarkQuestion
from eval.scene_questions import KINDS, Question
from eval.scene_scores import held_out_questions
from eval.scenes import Scene, render


@pytest.fixture(scope="module")
def questions() -> list[BenchmarkQuestion]:
    return scene_vqa.load_questions()


@pytest.fixture(scope="module")
def right(questions) -> list[AnswerLine]:
    return [AnswerLine(number, question.answer) for number, (_, question) in enumerate(in_turn())]


def in_turn() -> list[tuple[Scene, Question]]:
    """The questions of the nano scores, one of each kind after the other."""
    items = held_out_questions(scene_vqa.NUM_PER_KIND)
    return [items[kind * 170 + index] for index in range(170) for kind in range(6)]


def test_the_questions_are_those_of_the_nano_scores(questions):
    items = in_turn()
    assert [each.prompt for each in questions] == [question.question for _, question in items]
    assert [each.category for each in questions] == [question.kind for _, question in items]
    assert [each.question_id for each in questions] == list(range(1020))
    assert np.array_equal(np.asarray(questions[700].image), render(items[700][0], 64))


def test_the_first_questions_are_of_all_kinds(questions):
    assert [each.category for each in questions[:12]] == [*KINDS, *KINDS]


def test_questions_without_an_answer_can_be_left_out(right):
    wrong = AnswerLine(7, "no idea")
    report = scene_vqa.score_answers([*right[:7], wrong], answered_only=True)
    assert report.headline == ("accuracy", 87.5)
    assert [(each.group, each.num_items) for each in report.groups] == [
        (kind, 2 if kind in KINDS[:2] else 1) for kind in KINDS
    ]
    assert (report.counts.num_items, report.counts.num_missing) == (8, 1012)
    assert report.settings["answered_only"] is True


def test_right_answers_score_in_all_and_by_kind(right):
    report = scene_vqa.score_answers(right)
    assert report.headline == ("accuracy", 100.0)
    assert [(each.group, each.num_items, each.score) for each in report.groups] == [
        (kind, 170, 100.0) for kind in KINDS
    ]


def test_case_and_a_final_period_do_not_matter_but_more_words_do(right):
    loud = [AnswerLine(each.question_id, f" {each.text.upper()}.") for each in right]
    wordy = [AnswerLine(each.question_id, f"it is {each.text}") for each in right]
    assert scene_vqa.score_answers(loud).headline[1] == 100
    assert scene_vqa.score_answers(wordy).headline[1] == 0


def test_missing_answers_are_wrong_and_odd_ones_are_counted(right):
    odd = [*right[10:], right[10], AnswerLine(5000, "yes"), AnswerLine("a", "no")]
    report = scene_vqa.score_answers(odd)
    assert report.headline[1] == pytest.approx(100 * 1010 / 1020)
    counts = report.counts
    assert (counts.num_missing, counts.num_duplicate, counts.num_extra) == (10, 1, 2)
    assert [item.score for item in report.items[9:11]] == [0.0, 1.0]
    assert report.items[9].details["answer"] is None


def test_the_last_of_several_answers_counts(right):
    assert scene_vqa.score_answers([*right, AnswerLine(0, "no idea")]).items[0].score == 0
