"""POPE's scorer against recorded official results, and its files and command."""

import json
from operator import itemgetter

import pytest
from typer.testing import CliRunner

from eval.answer_files import AnswerLine
from eval.pope import (
    CATEGORIES,
    app,
    load_questions,
    mean_f1,
    parse_answer,
    score_answers,
    score_category,
)
from tests.eval.benchmark_files import (
    answer_lines,
    score_by_command,
    write_lines,
    write_picture,
)
from tests.eval.scoring_goldens import load_cases

SUFFIX = "\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize("case", load_cases("pope_parse"), ids=itemgetter("id"))
def test_answers_are_read_as_officially(case):
    assert parse_answer(case["text"]) == case["expected"]


def check_category(score, expected):
    counts = {
        "samples": score.num_answers,
        "TP": score.true_positives,
        "FP": score.false_positives,
        "TN": score.true_negatives,
        "FN": score.false_negatives,
        "accuracy": score.accuracy,
        "precision": score.precision,
        "recall": score.recall,
        "f1_score": score.f1,
        "yes_ratio": score.yes_ratio,
    }
    assert {name: counts[name] for name in expected if name in counts} == {
        name: value for name, value in expected.items() if name in counts
    }
    if "summary_f1_acc_prec_rec_yes" in expected:
        summary = ", ".join(f"{value:.3f}" for value in score.measures().values())
        assert summary == expected["summary_f1_acc_prec_rec_yes"]


@pytest.mark.parametrize("case", load_cases("pope_metrics"), ids=itemgetter("id"))
def test_measures_of_each_category_equal_the_official_ones(case):
    for name, items in case["categories"].items():
        texts, labels = ([item[key] for item in items] for key in ("text", "label"))
        check_category(score_category(texts, labels), case["expected"][name])


@pytest.mark.parametrize("case", load_cases("pope_edge"), ids=itemgetter("id"))
def test_edge_cases_equal_the_official_ones_or_are_undefined(case):
    score = score_category([item["text"] for item in case["items"]], case["label_file"])
    check_category(score, case["expected"])
    assert (None in score.measures().values()) == (case["error"] is not None)


@pytest.mark.parametrize("case", load_cases("pope_metrics")[:2], ids=itemgetter("id"))
def test_the_command_gives_the_official_numbers(case, tmp_path):
    answers = write_bundle(tmp_path, case["categories"])
    report = score_by_command(app, answers, tmp_path)
    for name, expected in case["expected"].items():
        assert report["metrics"][f"{name}_f1"] == expected["f1_score"]
        assert report["metrics"][f"{name}_yes_ratio"] == expected["yes_ratio"]
    f1s = [expected["f1_score"] for expected in case["expected"].values()]
    mean = pytest.approx(sum(f1s) / 3, rel=1e-15) if len(f1s) == 3 else None  # the order differs
    assert report["metrics"]["mean_f1"] == mean
    assert report["settings"] == {"pairing": dict.fromkeys(case["expected"], "position")}
    assert len(report["notes"]) == 1
    assert f"has {len(answers)} questions, LLaVA's has 8910" in report["notes"][0]


def write_bundle(folder, categories):
    """A bundle in the official formats, ids counted over all categories; gives the answers."""
    questions: list[dict] = []
    answers: list[AnswerLine] = []
    for category, items in categories.items():
        labels = []
        for place, item in enumerate(items):
            image, text = f"{category}{place // 6}.jpg", f"Is there thing {place % 6}?"
            question_id = len(questions) + 1
            questions.append(
                {
                    "question_id": question_id,
                    "image": image,
                    "text": text + SUFFIX,
                    "category": category,
                }
            )
            labels.append(
                {"question_id": place + 1, "image": image, "text": text, "label": item["label"]}
            )
            answers.append(AnswerLine(question_id, item["text"]))
        write_lines(folder / "pope" / "coco" / f"coco_pope_{category}.json", labels)
    write_lines(folder / "pope" / "llava_pope_test.jsonl", questions)
    return answers


# Two right, one false alarm, one miss in every category.
ITEMS = [
    {"label": "yes", "text": "Yes"},
    {"label": "no", "text": "No"},
    {"label": "yes", "text": "No"},
    {"label": "no", "text": "Yes"},
    {"label": "yes", "text": "Yes"},
]


@pytest.fixture
def bundle(tmp_path):
    answers = write_bundle(tmp_path, dict.fromkeys(CATEGORIES, ITEMS))
    return tmp_path, answers


def test_labels_in_another_order_are_joined_on_picture_and_question(bundle):
    folder, answers = bundle
    path = folder / "pope" / "coco" / "coco_pope_random.json"
    lines = path.read_text().splitlines(keepends=True)
    extra = json.dumps({"image": "new.jpg", "text": "Is there a typo?", "label": "yes"})
    straight = score_answers(answers, folder)
    path.write_text("".join(reversed(lines)) + extra + "\n")
    joined = score_answers(answers, folder)
    assert joined.metrics == straight.metrics
    assert joined.settings["pairing"]["random"] == "question"
    assert "5 of 5 answers and 6 labels were joined on picture and question" in joined.notes[0]
    assert "e3e3926" in joined.notes[0]


def test_a_missing_answer_does_not_shift_the_labels(bundle):
    folder, answers = bundle
    report = score_answers(answers[1:], folder)
    assert report.settings["pairing"]["random"] == "question"
    assert report.metrics["random_accuracy"] == 2 / 4
    assert report.metrics["popular_accuracy"] == 3 / 5
    assert (report.counts.num_items, report.counts.num_missing) == (15, 1)


def test_a_second_answer_to_a_question_takes_its_place_and_is_counted(bundle):
    folder, answers = bundle
    report = score_answers([*answers[:1], AnswerLine(1, "No"), *answers[1:]], folder)
    assert report.counts.num_duplicate == 1
    assert report.metrics["random_accuracy"] == 2 / 5
    assert (
        "random: several answers are about random0.jpg: Is there thing 0?, of which the last counts"
        in report.notes
    )


def test_two_questions_with_one_text_are_named_where_they_cannot_be_told_apart(bundle):
    folder, answers = bundle
    path = folder / "pope" / "llava_pope_test.jsonl"
    path.write_text(path.read_text().replace("random0.jpg", "X").replace("thing 1", "thing 0", 1))
    path.write_text(path.read_text().replace('"X"', '"random0.jpg"'))
    report = score_answers(answers, folder)
    assert report.settings["pairing"]["random"] == "question"
    assert report.counts.num_duplicate == 0
    assert "random: several answers are about random0.jpg: Is there thing 0?, of" in " ".join(
        report.notes
    )


def test_labels_that_stand_twice_are_named_where_they_are_joined(bundle):
    folder, answers = bundle
    path = folder / "pope" / "coco" / "coco_pope_random.json"
    first, second, *rest = path.read_text().splitlines(keepends=True)
    path.write_text("".join([second, first, *rest, first]))
    report = score_answers(answers, folder)
    assert report.metrics["random_accuracy"] == 4 / 6
    assert (
        "random: several labels are of random0.jpg: Is there thing 0?, each of which counts"
        in report.notes
    )


def test_equal_questions_that_stand_at_their_places_are_no_trouble(bundle):
    folder, answers = bundle
    for path in (folder / "pope").rglob("*.json*"):
        path.write_text(path.read_text().replace("thing 1", "thing 0"))
    report = score_answers(answers, folder)
    assert report.settings["pairing"]["random"] == "position"
    assert len(report.notes) == 1  # on the number of questions


def test_surplus_labels_are_named_with_both_counts(bundle):
    folder, answers = bundle
    path = folder / "pope" / "coco" / "coco_pope_popular.json"
    path.write_text(path.read_text() + '{"label": "yes"}\n')
    report = score_answers(answers, folder)
    assert report.notes[:-1] == (
        "popular: 5 answers but 6 labels; the surplus is not counted (expected 2,910 for random "
        "and 3,000 for the others, labels from output/coco of AoiDragon/POPE at commit e3e3926)",
    )


def test_labels_of_other_pictures_are_paired_by_position_with_a_note(bundle):
    folder, answers = bundle
    path = folder / "pope" / "coco" / "coco_pope_popular.json"
    path.write_text(path.read_text().replace(".jpg", ".png"))
    report = score_answers(answers, folder)
    assert report.metrics["popular_accuracy"] == 3 / 5
    assert report.notes[:-1] == (
        "popular: no label names the picture and question of any answer; paired by position, "
        "which nothing confirms",
    )


def test_any_label_but_no_means_yes():
    score = score_category(["Yes", "Yes", "Yes"], ["maybe", "No", "no"])
    assert (score.true_positives, score.false_positives) == (2, 1)


def test_a_category_without_answers_has_no_score_and_neither_has_the_mean(bundle):
    folder, answers = bundle
    report = score_answers(answers[5:], folder)
    assert report.headline == ("mean_f1", None)
    assert report.metrics["random_yes_ratio"] is None
    assert report.metrics["popular_f1"] is not None
    assert "random: f1, accuracy, precision, recall, yes_ratio cannot be computed" in " ".join(
        report.notes
    )


def test_the_mean_needs_all_three_categories():
    perfect = score_category(["Yes"], ["yes"])
    never = score_category(["No"], ["yes"])
    assert mean_f1(dict.fromkeys(CATEGORIES, perfect)) == 1
    assert mean_f1({**dict.fromkeys(CATEGORIES, perfect), "random": never}) is None


def test_an_answer_to_no_question_is_an_error_with_its_id(bundle):
    folder, answers = bundle
    with pytest.raises(ValueError, match="POPE has no question 99; answers must be to"):
        score_answers([*answers, AnswerLine(99, "Yes")], folder)


def test_every_answer_has_its_verdict(bundle):
    folder, answers = bundle
    texts = {answer.question_id: answer.text for answer in answers}
    report = score_answers(answer_lines({**texts, 1: "", 2: "没有"}), folder)
    assert [(item.item_id, item.score) for item in report.items[:3]] == [
        ("1", 1.0),
        ("2", 0.0),
        ("3", 0.0),
    ]
    assert report.items[1].details == {"answer": "没有", "read_as": "yes", "expected": "no"}


def test_missing_files_are_named_with_their_source(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"llava_pope_test.jsonl does not exist; get it"):
        load_questions(tmp_path)
    answers = write_bundle(tmp_path, dict.fromkeys(CATEGORIES, ITEMS))
    with pytest.raises(FileNotFoundError, match=r"picture of question 1, does not exist.*val2014"):
        load_questions(tmp_path)
    (tmp_path / "pope" / "coco" / "coco_pope_popular.json").unlink()
    report = score_answers(answers, tmp_path)
    assert report.headline == ("mean_f1", None)
    assert report.notes[0].startswith("popular: no file coco_pope_popular.json, so not scored")
    for path in (tmp_path / "pope" / "coco").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no label files such as coco_pope_random"):
        score_answers(answers, tmp_path)


def test_a_label_line_without_a_label_is_named(bundle):
    folder, answers = bundle
    path = folder / "pope" / "coco" / "coco_pope_popular.json"
    path.write_text('{"image": "a.jpg"}\n')
    with pytest.raises(
        ValueError, match=r"popular.json, line 1: label must be yes or no, got None"
    ):
        score_answers(answers, folder)


def test_questions_are_loaded_with_prompt_and_picture(bundle):
    folder, _ = bundle
    for category in CATEGORIES:
        write_picture(folder / "pope" / "val2014" / f"{category}0.jpg")
    questions = load_questions(folder)
    assert [question.question_id for question in questions] == list(range(1, 16))
    assert questions[0].prompt == "Is there thing 0?" + SUFFIX
    assert questions[0].image == folder / "pope" / "val2014" / "random0.jpg"


def test_the_command_refuses_to_overwrite(bundle):
    folder, answers = bundle
    score_by_command(app, answers, folder)
    arguments = ["--answers", folder / "answers_of_a_test.jsonl", "--data", folder]
    output = folder / "report_of_a_test.json"
    result = CliRunner().invoke(app, [*map(str, arguments), "-o", str(output)])
    assert result.exit_code == 1
    assert "exists already; pass --force" in result.output
