"""ScienceQA's scorer against recorded official results, and its files and command."""

import json
from operator import itemgetter

import pytest

from eval.answer_files import AnswerLine
from eval.scienceqa import (
    app,
    choice_index,
    load_questions,
    parse_answer,
    score_answers,
    score_problems,
)
from tests.eval.benchmark_files import score_by_command, write_json, write_picture
from tests.eval.scoring_goldens import load_cases

LETTER = "\nAnswer with the option's letter from the given choices directly."


@pytest.mark.parametrize("case", load_cases("scienceqa"), ids=itemgetter("id"))
def test_answers_are_read_and_scored_as_officially(case):
    answers = [AnswerLine(**prediction) for prediction in case["predictions"]]
    items = score_problems(case["problems"], case["split"], answers=answers)
    expected = case["expected"]
    parsed = {item.item_id: item.details["read_as"] or "FAILED" for item in items}
    assert parsed == expected["parsed"]
    assert {item.item_id: item.details["choice"] for item in items} == expected["pred_idx"]


@pytest.mark.parametrize("case", load_cases("scienceqa"), ids=itemgetter("id"))
def test_the_command_gives_the_official_accuracies(case, tmp_path):
    write_annotations(tmp_path, case["problems"], test=case["split"])
    answers = [AnswerLine(**prediction) for prediction in case["predictions"]]
    report = score_by_command(app, answers, tmp_path)
    expected = case["expected"]
    accuracy, img_accuracy = report["metrics"].values()
    num_right = sum(item["score"] for item in report["items"])
    line = (
        f"Total: {len(report['items'])}, Correct: {num_right:.0f}, Accuracy: {accuracy:.2f}%, "
        f"IMG-Accuracy: {img_accuracy:.2f}%"
    )
    assert line == expected["line"]
    assert accuracy == expected["acc"]
    assert report["counts"]["num_items"] == expected["count"]


def write_annotations(folder, problems, **splits):
    write_json(folder / "scienceqa" / "problems.json", problems)
    write_json(folder / "scienceqa" / "pid_splits.json", splits)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("E", "E"),
        ("F", None),
        ("A.", None),
        ("A. ", "A"),
        ("B.\nbecause", None),
        ("The answer is Z!", "Z"),
        ("The answer is B\n", None),
        ("So The answer is D, I think. The answer is", "D"),
        ("The answer is A. The answer is A.", None),
        ("C. The answer is A.", "C"),
        ("", None),
        ("Б", None),
    ],
)
def test_a_letter_stands_alone_first_or_in_one_sentence(text, letter):
    assert parse_answer(text) == letter


def test_a_letter_beyond_the_choices_is_no_choice():
    assert [choice_index(letter, 2) for letter in ("A", "B", "C", "Z", None)] == [0, 1, -1, -1, -1]
    assert choice_index("F", 9) == -1


@pytest.fixture
def bundle(tmp_path):
    problems = {str(n): {"choices": ["x", "y", "z"], "answer": n % 3} for n in range(4)}
    write_annotations(tmp_path, problems, test=["0", "1", "2", "3"], val=["0"])
    return tmp_path


def test_a_problem_without_an_answer_is_wrong_and_not_with_picture(bundle):
    answers = [AnswerLine("0", "A", prompt="<image>\nq"), AnswerLine("1", "B", prompt="q")]
    report = score_answers(answers, bundle)
    assert report.metrics == {"accuracy": 50.0, "img_accuracy": 100.0}
    assert [(group.group, group.num_items) for group in report.groups] == [
        ("with picture", 1),
        ("text only", 3),
    ]
    assert report.counts.num_missing == 2


def test_problems_without_an_answer_can_be_left_out(bundle):
    report = score_answers([AnswerLine("0", "A"), AnswerLine("1", "C")], bundle, answered_only=True)
    assert report.metrics["accuracy"] == 50
    assert (report.counts.num_items, report.counts.num_missing) == (2, 2)
    assert report.settings["answered_only"] is True


def test_strange_answers_are_counted_and_the_last_of_two_wins(bundle):
    answers = [
        AnswerLine("0", "B", prompt="<image>\nq"),
        AnswerLine("0", "A", prompt="<image>\nq"),
        AnswerLine("1", "maybe"),
        AnswerLine("77", "A"),
    ]
    report = score_answers(answers, bundle)
    assert report.metrics["accuracy"] == 25.0
    counts = report.counts
    assert (counts.num_missing, counts.num_duplicate, counts.num_extra) == (2, 1, 1)
    assert counts.num_unparsable == 1
    assert report.notes == ("several answers to one question (0): the last one counts, as usual",)


def test_without_pictures_the_picture_accuracy_is_undefined(bundle):
    report = score_answers([AnswerLine("0", "A", prompt="q")], bundle)
    assert report.metrics["img_accuracy"] is None
    assert "img_accuracy cannot be computed" in report.notes[0]


def test_another_split_can_be_scored(bundle):
    assert score_answers([AnswerLine("0", "A")], bundle, split="val").metrics["accuracy"] == 100
    with pytest.raises(ValueError, match="no split 'dev'; expected one of test, val"):
        score_answers([], bundle, split="dev")


def test_a_problem_without_data_is_named():
    with pytest.raises(ValueError, match="no problem 5"):
        score_problems({}, ["5"], answers=[])
    problems = {"5": {"choices": list("abcdef"), "answer": 5}}
    with pytest.raises(ValueError, match=r"problem 5: the right answer must be .* got 5"):
        score_problems(problems, ["5"], answers=[])
    with pytest.raises(ValueError, match=r"problems.json, problem 5: answer must be int, got None"):
        score_problems({"5": {"choices": ["a"]}}, ["5"], answers=[])


def write_questions(folder, *records):
    path = folder / "scienceqa" / "llava_test_CQM-A.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), encoding="utf-8")


def test_the_stored_prompt_has_the_mark_of_a_picture_and_the_asked_one_has_not(tmp_path):
    turns = [{"from": "human", "value": "<image>\nContext: N/A\nWhich?\nA. x\nB. y"}, {}]
    write_questions(
        tmp_path,
        {"id": "4", "image": "4/image.png", "conversations": turns},
        {"id": "5", "conversations": [{"from": "human", "value": f"Which?{LETTER}"}]},
    )
    write_picture(tmp_path / "scienceqa" / "images" / "test" / "4" / "image.png")
    first, second = load_questions(tmp_path)
    assert first.prompt == "Context: N/A\nWhich?\nA. x\nB. y" + LETTER
    assert first.text == "<image>\n" + first.prompt
    assert first.image == tmp_path / "scienceqa" / "images" / "test" / "4" / "image.png"
    assert (second.text, second.prompt, second.image) == (f"Which?{LETTER}",) * 2 + (None,)


def test_missing_and_broken_files_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"pid_splits.json does not exist; get it from data"
    ):
        score_answers([], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"llava_test_CQM-A.json does not exist"):
        load_questions(tmp_path)
    write_questions(tmp_path, {"id": 4})
    with pytest.raises(ValueError, match="entry 1: expected id and conversations, got"):
        load_questions(tmp_path)
    write_json(tmp_path / "scienceqa" / "llava_test_CQM-A.json", {})
    with pytest.raises(ValueError, match="must hold a JSON list, got dict"):
        load_questions(tmp_path)
