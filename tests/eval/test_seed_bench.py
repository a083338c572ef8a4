"""SEED-Bench's scorer against recorded official results, and its files and command."""

import json
from operator import itemgetter

import pytest

from eval.answer_files import AnswerLine
from eval.scoring import accuracy
from eval.seed_bench import (
    DATA_TYPES,
    app,
    load_questions,
    parse_annotation,
    score_answers,
    score_questions,
    type_accuracy,
    write_submission,
)
from tests.eval.benchmark_files import (
    answer_lines,
    score_by_command,
    write_json,
    write_lines,
    write_picture,
)
from tests.eval.scoring_goldens import load_cases


def official_lines(groups, total, by_type):
    """What the official script prints."""
    scores = {**groups, "Total accuracy": total}
    scores |= {f"{name} accuracy": value for name, value in by_type.items()}
    return [f"{name}: {score:.2f}%" for name, score in scores.items()]


@pytest.mark.parametrize("case", load_cases("seed"), ids=itemgetter("id"))
def test_the_command_gives_the_official_lines(case, tmp_path):
    write_json(tmp_path / "seed_bench" / "SEED-Bench.json", case["annotation"])
    answers = [AnswerLine(**answer) for answer in case["answers"]]
    report = score_by_command(app, answers, tmp_path)
    lines = official_lines(
        {group["group"]: group["score"] for group in report["groups"]},
        report["metrics"]["accuracy"],
        {name: report["metrics"][f"{name}_accuracy"] for name in DATA_TYPES},
    )
    assert lines == case["expected_lines"]


@pytest.mark.parametrize("case", load_cases("seed"), ids=itemgetter("id"))
def test_parsed_questions_give_the_official_totals(case):
    questions = parse_annotation(case["annotation"], "SEED-Bench.json")
    items = score_questions(questions, [AnswerLine(**answer) for answer in case["answers"]])
    by_type = {name: type_accuracy(items, name) for name in DATA_TYPES}
    assert official_lines({}, accuracy(items), by_type) == case["expected_lines"][-3:]


ANNOTATION = {
    "questions": [
        {"question_id": "7", "question_type_id": 2, "data_type": "image", "answer": "A"},
        {"question_id": "v8", "question_type_id": 10, "data_type": "video", "answer": "B"},
        {"question_id": 9, "question_type_id": 1, "data_type": "image", "answer": "C"},
    ],
    "question_type": {"Action": 10, "Scene": 1, "Identity": 2, "Unused": 5},
}


@pytest.fixture
def bundle(tmp_path):
    write_json(tmp_path / "seed_bench" / "SEED-Bench.json", ANNOTATION)
    return tmp_path


def test_only_the_very_letter_is_right(bundle):
    report = score_answers(answer_lines({7: "A", "v8": "B.", 9: " C"}), bundle)
    assert report.metrics["accuracy"] == pytest.approx(100 / 3)
    assert report.counts.num_unparsable == 2


def test_questions_without_an_answer_can_be_left_out(bundle):
    report = score_answers(answer_lines({7: "A", 9: "D"}), bundle, answered_only=True)
    assert report.metrics == {"accuracy": 50.0, "image_accuracy": 50.0, "video_accuracy": None}
    assert (report.counts.num_items, report.counts.num_missing) == (2, 1)
    assert [group.group for group in report.groups] == ["Scene", "Identity"]


def test_tasks_come_in_the_order_of_their_official_numbers(bundle):
    report = score_answers(answer_lines({7: "A", "v8": "B", 9: "D"}), bundle)
    groups = [(group.group, group.num_items, group.score) for group in report.groups]
    assert groups == [("Scene", 1, 0.0), ("Identity", 1, 100.0), ("Action", 1, 100.0)]
    assert report.metrics == {
        "accuracy": 2 / 3 * 100,
        "image_accuracy": 50.0,
        "video_accuracy": 100.0,
    }


def test_a_number_written_as_text_answers_no_question_and_is_named(bundle):
    report = score_answers(answer_lines({"7": "A", "v8": "B", 9: "C"}), bundle)
    assert report.metrics["accuracy"] == 2 / 3 * 100
    assert (report.counts.num_missing, report.counts.num_extra) == (1, 1)
    assert report.notes == (
        "numbers written as text are officially no ids of questions: 7; write them as numbers",
    )


def test_missing_answers_are_wrong_and_the_last_of_two_counts(bundle):
    answers = [*answer_lines({7: "B", "v8": "B"}), AnswerLine(7, "A"), AnswerLine(1, "É")]
    report = score_answers(answers, bundle)
    assert report.metrics["accuracy"] == 2 / 3 * 100
    counts = report.counts
    assert (counts.num_missing, counts.num_duplicate, counts.num_extra) == (1, 1, 1)
    assert report.items[2].details["answer"] is None


def test_without_videos_their_accuracy_is_undefined(tmp_path):
    annotation = {**ANNOTATION, "questions": ANNOTATION["questions"][:1]}
    write_json(tmp_path / "seed_bench" / "SEED-Bench.json", annotation)
    report = score_answers(answer_lines({7: "A"}), tmp_path)
    assert report.metrics["video_accuracy"] is None
    assert report.notes == ("video_accuracy cannot be computed: there are no such questions",)


def test_the_submission_has_every_annotated_question_in_order(bundle):
    path = bundle / "submission.jsonl"
    write_submission(answer_lines({9: "C", "v8": "", 7: "é"}), bundle, path)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"question_id": "7", "prediction": "é"},
        {"question_id": "v8", "prediction": ""},
        {"question_id": 9, "prediction": "C"},
    ]


def test_a_submission_with_a_gap_is_an_error_that_names_it(bundle):
    with pytest.raises(ValueError, match="got none to v8, 9"):
        write_submission(answer_lines({7: "A"}), bundle, bundle / "submission.jsonl")
    assert not (bundle / "submission.jsonl").exists()


def test_a_broken_annotation_is_named():
    with pytest.raises(ValueError, match="s: question_type must be dict, got None"):
        parse_annotation({"questions": []}, "s")
    broken = {**ANNOTATION, "question_type": {"Scene": 1}}
    with pytest.raises(
        ValueError, match=r"s, questions\[0\]: question_type_id must be one of 1, got 2"
    ):
        parse_annotation(broken, "s")


def test_questions_are_loaded_with_their_frames(tmp_path):
    record = {"question_id": "v8", "image": "SEED-Bench-video-image/8.png", "text": "What?"}
    write_lines(tmp_path / "seed_bench" / "llava-seed-bench.jsonl", [record])
    with pytest.raises(FileNotFoundError, match=r"8.png, the picture of question v8, does not"):
        load_questions(tmp_path)
    write_picture(tmp_path / "seed_bench" / record["image"])
    (question,) = load_questions(tmp_path)
    assert (question.question_id, question.prompt) == ("v8", "What?")
