"""GQA's scores against official ones, and the rules and files around them."""

import json
from operator import itemgetter

import pytest

from eval.answer_files import AnswerLine
from eval.gqa import app, load_questions, read_choices, score_answers, write_submission
from eval.gqa_rules import (
    Choices,
    convert,
    distribution,
    parse_question,
    score_predictions,
)
from eval.report import GroupScore, ItemCounts, read_report
from tests.eval.benchmark_files import invoke, write_json, write_lines, write_picture
from tests.eval.scoring_goldens import load_cases

CASES = load_cases("gqa")
TABLES = {
    "per structural type": "structural type",
    "per semantic type": "semantic type",
    "per steps number": "steps number",
    "per words number": "words number",
}
OPERATION = {"operation": "select", "argument": "dog (1)"}


def record(answer="yes", **changes):
    return {
        "question": "Is it a dog?",
        "answer": answer,
        "isBalanced": True,
        "types": {"structural": "verify", "semantic": "obj", "detailed": "exist"},
        "groups": {"global": "animal", "local": "x"},
        "semantic": [OPERATION],
        **changes,
    }


def question(question_id, answer="yes", **changes):
    return parse_question(question_id, record(answer, **changes))


def types(structural="verify", semantic="obj", detailed="exist"):
    return {"structural": structural, "semantic": semantic, "detailed": detailed}


def assert_official(report, expected):
    """Metrics and tables as the official script prints them; what it gives as 0 is left out."""
    printed = {name: f"{value:.2f}" for name, value in report.metrics.items()}
    assert printed == {
        name: expected[name] for name in ("accuracy", "binary", "open", "distribution")
    }
    tables = {
        f"{name}: {value}": row
        for table, name in TABLES.items()
        for value, row in expected[table].items()
    }
    groups = {group.group: [f"{group.score:.2f}", group.num_items] for group in report.groups}
    assert groups == tables
    assert list(groups) == list(tables)


@pytest.mark.parametrize("case", CASES, ids=itemgetter("id"))
def test_scores_equal_the_official_ones(case):
    answers = [AnswerLine(line["question_id"], line["text"]) for line in case["answers"]]
    predictions = convert(answers)
    converted = {prediction.question_id: prediction.text for prediction in predictions}
    assert converted == case["expected_converted"]
    questions = [parse_question(*pair) for pair in case["questions"].items()]
    assert_official(score_predictions(predictions, questions), case["expected"])


@pytest.mark.parametrize("case", CASES, ids=itemgetter("id"))
def test_the_command_scores_llavas_answers_and_official_predictions(case, tmp_path):
    questions = write_json(tmp_path / "testdev_balanced_questions.json", case["questions"])
    answers = write_lines(tmp_path / "merge.jsonl", case["answers"])
    predictions, first, second = (tmp_path / f"{name}.json" for name in ("p", "first", "second"))
    outcome = invoke(
        app, "--answers", answers, "--annotations", questions,
        "-o", first, "--submission", predictions,
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    assert_official(read_report(first), case["expected"])
    assert case["expected"]["accuracy"] in outcome.stdout
    written = {
        line["questionId"]: line["prediction"] for line in json.loads(predictions.read_text())
    }
    assert written == case["expected_converted"]
    again = invoke(app, "--answers", predictions, "--annotations", questions, "-o", second)
    assert again.exit_code == 0, again.output
    assert second.read_text() == first.read_text()


@pytest.mark.parametrize(
    ("text", "prediction"),
    [
        ("Yes...", "yes"),
        (".Yes. ", ".yes. "),
        ("A DOG", "a dog"),
        ("", ""),
        ("...", ""),
        ("\u00c9t\u00e9.", "\u00e9t\u00e9"),
        ("No!\n", "no!\n"),
    ],
)
def test_conversion_takes_periods_from_the_end_and_lowers(text, prediction):
    assert convert([AnswerLine("1", text)])[0].text == prediction


@pytest.mark.parametrize("text", ["a dog", "dog ", " dog", "dogs", "", "Dog"])
def test_a_prediction_that_is_not_the_answer_to_the_letter_is_wrong(text):
    report = score_predictions([AnswerLine("1", text)], [question("1", "dog")])
    assert report.metrics["accuracy"] == 0
    assert report.items[0].details == {"answer": text, "expected": "dog"}


def test_official_predictions_are_not_converted(tmp_path):
    questions = write_json(tmp_path / "q.json", {"1": record()})
    predictions = write_json(tmp_path / "p.json", [{"questionId": "1", "prediction": "Yes."}])
    arguments = ("--annotations", questions, "-o", tmp_path / "r.json")
    assert invoke(app, "--answers", predictions, *arguments).exit_code == 0
    assert read_report(tmp_path / "r.json").metrics["accuracy"] == 0
    answers = write_lines(tmp_path / "a.jsonl", [{"question_id": "1", "text": "Yes."}])
    assert invoke(app, "--answers", answers, *arguments, "--force").exit_code == 0
    assert read_report(tmp_path / "r.json").metrics["accuracy"] == 100


def test_open_questions_are_those_that_query():
    questions = [question("1", types=types("query")), question("2"), question("3")]
    predictions = [AnswerLine("1", "no"), AnswerLine("2", "yes"), AnswerLine("3", "no")]
    metrics = score_predictions(predictions, questions).metrics
    assert (metrics["open"], metrics["binary"], metrics["accuracy"]) == (0, 50, 33.33)


def test_a_kind_without_questions_has_the_official_zero_and_a_note():
    report = score_predictions([AnswerLine("1", "yes")], [question("1")])
    assert report.metrics["open"] == 0
    assert "open is 0, as officially, because no question is open" in report.notes


@pytest.mark.parametrize(
    ("operation", "argument", "num_steps"),
    [
        ("exist", "?", 0),
        ("query", "name", 0),
        ("query", "color", 1),
        ("choose name", "dog|cat", 0),
        ("choose color", "red|blue", 1),
        ("select", "a dog that exists", 0),  # officially found anywhere in the text
        ("verify", "query: name", 0),
    ],
)
def test_operations_that_state_the_answer_are_no_steps(operation, argument, num_steps):
    semantic = [{"operation": operation, "argument": argument}]
    assert question("1", semantic=semantic).num_steps == num_steps


def test_words_are_split_at_any_blanks():
    assert question("1", question=" What  is\tit ?\n").num_words == 4


def test_numbers_of_words_are_sorted_as_numbers():
    texts = ["w " * count for count in (10, 9, 2)]
    questions = [question(text, question=text) for text in texts]
    report = score_predictions([AnswerLine(text, "yes") for text in texts], questions)
    words = [group for group in report.groups if group.group.startswith("words")]
    assert words == [GroupScore(f"words number: {count}", 1, 100.0) for count in (2, 9, 10)]


def test_the_distribution_weighs_each_group_by_its_questions():
    gold = {"a": {"yes": 4, "no": 2}, "b": {"red": 2}}
    predicted = {"a": {"yes": 6}, "b": {"blue": 2}}
    # a: (6-4)^2/4 + (0-2)^2/2 = 3; b: (0-2)^2/2 = 2; answers that are never gold do not count
    assert distribution(gold, predicted) == pytest.approx((6 * 3 + 2 * 2) / 8 / 100, rel=1e-12)
    assert distribution(gold, gold) == 0


def test_questions_without_a_group_are_no_part_of_the_distribution():
    questions = [question("1"), question("2", groups={"global": None})]
    predictions = [AnswerLine("1", "yes"), AnswerLine("2", "no")]
    assert score_predictions(predictions, questions).metrics["distribution"] == 0


def test_the_distribution_is_undefined_without_groups():
    report = score_predictions([AnswerLine("1", "yes")], [question("1", groups={"global": None})])
    assert report.metrics["distribution"] is None
    assert "distribution is undefined: no question belongs to a group" in report.notes


def test_only_balanced_questions_count_and_the_others_need_no_prediction():
    questions = [question("1"), question("2", isBalanced=False), question("3", isBalanced=False)]
    report = score_predictions([AnswerLine("1", "yes"), AnswerLine("2", "no")], questions)
    assert report.metrics["accuracy"] == 100
    assert report.counts == ItemCounts(num_items=1)


def test_of_several_predictions_the_last_counts_and_strange_ones_are_ignored():
    predictions = [AnswerLine("1", "no"), AnswerLine("1", "yes"), AnswerLine("9", "yes")]
    report = score_predictions(predictions, [question("1")])
    assert report.metrics["accuracy"] == 100
    assert report.counts == ItemCounts(num_items=1, num_duplicate=1, num_extra=1)


@pytest.mark.parametrize("question_id", ["2", 1])
def test_a_missing_prediction_is_an_error_that_names_the_question(question_id):
    message = "1 balanced questions have no prediction, the first is '1'"
    with pytest.raises(ValueError, match=message):
        score_predictions([AnswerLine(question_id, "yes")], [question("1")])


def test_only_answered_questions_are_scored_on_request():
    questions = [question("1"), question("2")]
    report = score_predictions([AnswerLine("2", "yes")], questions, answered_only=True)
    assert report.metrics["accuracy"] == 100
    assert report.counts == ItemCounts(num_items=1, num_missing=1)
    assert report.settings == {"answered_only": True}


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="2 balanced questions have no prediction"):
        score_predictions([], [question("1"), question("2")], answered_only=True)
    with pytest.raises(ValueError, match="no balanced question to score"):
        score_predictions([AnswerLine("1", "yes")], [question("1", isBalanced=False)])


def test_validity_and_plausibility_are_reported_only_with_choices():
    questions = [question("1"), question("2"), question("3", types=types(detailed="typeCommon"))]
    predictions = [AnswerLine("1", "yes"), AnswerLine("2", "dog"), AnswerLine("3", "color")]
    without = score_predictions(predictions, questions)
    assert "validity" not in without.metrics
    assert "plausibility" not in without.metrics
    assert "validity and plausibility need the file of choices" in without.notes
    own = Choices(valid=frozenset(("yes", "dog")), plausible=frozenset(("yes",)))
    choices = dict.fromkeys(("1", "2", "3"), own)
    metrics = score_predictions(predictions, questions, choices=choices).metrics
    assert metrics["validity"] == 100
    assert metrics["plausibility"] == 66.67


def test_a_question_without_choices_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="question '1' has no choices"):
        score_predictions([AnswerLine("1", "yes")], [question("1")], choices={})


def test_the_command_reads_choices(tmp_path):
    outcome = invoke(
        app,
        "--answers", write_lines(tmp_path / "a.jsonl", [{"question_id": "1", "text": "Dog."}]),
        "--annotations", write_json(tmp_path / "q.json", {"1": record()}),
        "--choices", write_json(tmp_path / "c.json", {"1": {"valid": ["dog"], "plausible": []}}),
        "-o", tmp_path / "report.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    metrics = read_report(tmp_path / "report.json").metrics
    assert (metrics["validity"], metrics["plausibility"]) == (100, 0)
    broken = write_json(tmp_path / "broken.json", {"1": {"valid": [1], "plausible": []}})
    with pytest.raises(
        ValueError, match=r"broken\.json, question 1: valid must be a list of texts"
    ):
        read_choices(broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": None}, "questions, question 7: answer must be str, got None"),
        ({"isBalanced": 1}, "question 7: isBalanced must be bool, got 1"),
        ({"types": {"semantic": "obj"}}, "question 7, types: structural must be str, got None"),
        ({"semantic": ["select"]}, "question 7, semantic: expected an object"),
        ({"groups": None}, "question 7: groups must be dict, got None"),
    ],
)
def test_a_broken_question_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        question("7", **changes)


def test_questions_and_answers_are_found_below_data(tmp_path):
    folder = tmp_path / "gqa"
    with pytest.raises(FileNotFoundError, match=r"balanced\.jsonl does not exist; .*eval\.zip"):
        load_questions(tmp_path)
    asked = {"question_id": "1", "image": "n1.jpg", "text": "Is it a dog?"}
    write_lines(folder / "llava_gqa_testdev_balanced.jsonl", [asked])
    with pytest.raises(FileNotFoundError, match=r"data/images/n1\.jpg, .* not exist; .*gqa"):
        load_questions(tmp_path)
    write_picture(folder / "data" / "images" / "n1.jpg")
    (loaded,) = load_questions(tmp_path)
    assert loaded.image == folder / "data" / "images" / "n1.jpg"
    with pytest.raises(FileNotFoundError, match=r"balanced_questions\.json does not exist; .*gqa"):
        score_answers([AnswerLine("1", "Yes.")], tmp_path)
    write_json(folder / "data" / "testdev_balanced_questions.json", {"1": record()})
    assert score_answers([AnswerLine("1", "Yes.")], tmp_path).metrics["accuracy"] == 100


def test_every_answer_is_written_as_a_prediction(tmp_path):
    answers = [AnswerLine("2", "Dog."), AnswerLine("1", ""), AnswerLine("2", "CAT")]
    write_submission(answers, tmp_path, tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == [
        {"questionId": "2", "prediction": "dog"},
        {"questionId": "1", "prediction": ""},
        {"questionId": "2", "prediction": "cat"},
    ]


def test_the_command_names_what_is_wrong_in_one_line(tmp_path):
    questions = write_json(tmp_path / "q.json", {"1": record()})
    results = write_json(tmp_path / "r.json", [{"question_id": "1", "answer": "yes"}])
    outcome = invoke(app, "--answers", results, "--annotations", questions)
    assert outcome.exit_code == 1
    assert "r.json, [0]: questionId must be int or str, got None" in outcome.stderr
    absent = invoke(app, "--answers", tmp_path / "none", "--annotations", questions)
    assert absent.exit_code == 1
    assert "none does not exist; name a file with answers" in absent.stderr
