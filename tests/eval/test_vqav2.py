"""VQAv2's scores and uploads against official ones, and the rules and files around them."""

import json
from operator import itemgetter

import pytest

from eval.answer_files import AnswerLine
from eval.answer_text import agreement
from eval.arithmetic import round_half_away
from eval.report import ItemCounts, read_report
from eval.vqav2 import (
    Split,
    app,
    load_questions,
    read_intact_answers,
    score_answers,
    submission,
    write_submission,
)
from eval.vqav2_rules import (
    Normalization,
    accuracy,
    parse_annotation,
    percent,
    percent_by_group,
    score_annotated,
)
from tests.eval.benchmark_files import invoke, write_json, write_lines, write_picture
from tests.eval.scoring_goldens import load_cases

SPLIT_DECISION = ["cat"] * 5 + ["dog"] * 5


def annotation_record(question_id, truths, **changes):
    answers = [
        {"answer": truth, "answer_confidence": "yes", "answer_id": number}
        for number, truth in enumerate(truths, start=1)
    ]
    kinds = {"question_type": "what", "answer_type": "other"}
    return {"question_id": question_id, "image_id": 1, "answers": answers, **kinds, **changes}


def annotation(question_id):
    return parse_annotation(annotation_record(question_id, SPLIT_DECISION))


@pytest.mark.parametrize("case", load_cases("vqa_accuracy"), ids=itemgetter("id"))
def test_accuracies_equal_the_official_ones(case):
    value = 100 * accuracy(case["pred"], case["gt_answers"])
    assert round_half_away(value) == case["expected"]["vqa_official_percent_round2"]
    assert round_half_away(value, 10) == case["expected"]["vqa_official_percent_round10"]


@pytest.mark.parametrize("decimals", [2, 10])
@pytest.mark.parametrize("case", load_cases("vqa_dataset"), ids=itemgetter("id"))
def test_scores_of_many_equal_the_official_ones(case, decimals):
    items = case["items"]
    values = [accuracy(item["pred"], item["gt_answers"]) for item in items]
    expected = case["expected"]["vqa_official"][f"accuracy_round{decimals}"]
    assert percent(values, decimals=decimals) == expected["overall"]
    for kind, name in (("answer_type", "perAnswerType"), ("question_type", "perQuestionType")):
        pairs = zip((item[kind] for item in items), values, strict=True)
        groups = percent_by_group(pairs, decimals=decimals)
        assert {group: score for group, (score, _) in groups.items()} == expected[name]


@pytest.mark.parametrize("case", load_cases("vqa_dataset"), ids=itemgetter("id"))
def test_the_command_prints_and_stores_the_official_scores(case, tmp_path):
    items = list(enumerate(case["items"]))
    results = [{"question_id": number, "answer": item["pred"]} for number, item in items]
    records = [
        annotation_record(
            number,
            item["gt_answers"],
            answer_type=item["answer_type"],
            question_type=item["question_type"],
        )
        for number, item in items
    ]
    questions = [{"question_id": n, "image_id": 1, "question": "what?"} for n, _ in items]
    outcome = invoke(
        app,
        "--answers", write_json(tmp_path / "results.json", results),
        "--annotations", write_json(tmp_path / "annotations.json", {"annotations": records}),
        "--questions", write_json(tmp_path / "questions.json", {"questions": questions}),
        "-o", tmp_path / "report.json",
    )  # fmt: skip
    assert outcome.exit_code == 0, outcome.output
    expected = case["expected"]["vqa_official"]["accuracy_round2"]
    report = read_report(tmp_path / "report.json")
    assert report.metrics == {"accuracy": expected["overall"]}
    assert f"{expected['overall']:.2f}" in outcome.stdout
    assert {group.group: group.score for group in report.groups} == {
        **{f"answer type: {name}": value for name, value in expected["perAnswerType"].items()},
        **{f"question type: {name}": value for name, value in expected["perQuestionType"].items()},
    }
    assert report.counts == ItemCounts(num_items=len(items))
    assert report.settings == {"normalization": "official", "answered_only": False}


@pytest.mark.parametrize("case", load_cases("vqav2_submission"), ids=itemgetter("id"))
def test_uploads_equal_the_official_ones(case):
    answers = [AnswerLine(line["question_id"], line["text"]) for line in case["answers"]]
    assert submission(answers, case["split_question_ids"]) == case["expected_upload"]


def test_unanimous_people_are_compared_as_they_wrote():
    assert accuracy("Yes", ["yes"] * 10) == 0
    assert accuracy("a dog", ["a dog"] * 10) == 1
    assert accuracy("Yes", ["yes"] * 9 + ["no"]) == 1


def test_people_are_unanimous_if_only_their_outer_blanks_differ():
    assert accuracy("Yes", ["yes"] * 5 + [" yes\n"] * 5) == 0
    assert accuracy("\tyes", ["yes"] * 5 + [" yes\n"] * 5) == 1


def test_people_who_differ_only_before_normalisation_are_normalised():
    assert accuracy("YES!", ["yes"] * 5 + ["Yes"] * 5) == 1


def test_the_option_always_normalises_unanimous_questions_too():
    assert accuracy("Yes", ["yes"] * 10, normalization=Normalization.ALWAYS) == 1


@pytest.mark.parametrize("answer", ["", " ", "the", "。", "\U0001f600"])
def test_an_answer_that_nobody_gave_scores_nothing(answer):
    assert accuracy(answer, SPLIT_DECISION) == 0


def test_an_empty_answer_agrees_with_people_of_whose_answers_nothing_is_left():
    assert accuracy("", ["the"] * 4 + ["dog"] * 6) == agreement("x", ["x"] * 4 + ["y"] * 6)


def test_the_mean_is_rounded_as_by_python_2():
    assert percent([0.40625]) == 40.63
    assert percent([1.0] * 13 + [0.0] * 19) == 40.63


def test_the_last_of_several_answers_counts():
    answers = [AnswerLine(1, "fish"), AnswerLine(1, "cat")]
    report = score_annotated(answers, [annotation(1)])
    assert report.metrics == {"accuracy": 100.0}
    assert report.counts == ItemCounts(num_items=1, num_duplicate=1)
    assert report.items[0].details == {"answer": "cat", "expected": "cat"}


def test_a_missing_answer_is_an_error_that_names_the_question():
    with pytest.raises(ValueError, match="1 annotated questions have no answer, the first is 2"):
        score_annotated([AnswerLine(1, "cat")], [annotation(1), annotation(2)])


def test_only_answered_questions_are_scored_on_request():
    report = score_annotated(
        [AnswerLine(1, "cat")], [annotation(1), annotation(2)], answered_only=True
    )
    assert report.metrics == {"accuracy": 100.0}
    assert report.counts == ItemCounts(num_items=1, num_missing=1)
    assert report.settings["answered_only"] is True


@pytest.mark.parametrize("answered_only", [True, False])
def test_an_answer_to_no_question_is_an_error_that_names_it(answered_only):
    answers = [AnswerLine(1, "cat"), AnswerLine("1", "cat")]
    with pytest.raises(
        ValueError, match="1 answers belong to no annotated question, the first to '1'"
    ):
        score_annotated(answers, [annotation(1)], answered_only=answered_only)


@pytest.mark.parametrize("answered_only", [True, False])
def test_no_answers_at_all_are_an_error(answered_only):
    with pytest.raises(ValueError, match="1 annotated questions have no answer"):
        score_annotated([], [annotation(1)], answered_only=answered_only)
    with pytest.raises(ValueError, match="no annotated question to score"):
        score_annotated([], [], answered_only=answered_only)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": []}, "question 7 has no ground truth"),
        ({"answers": [{"answer": 3}]}, "an answer: answer must be str, got 3"),
        ({"answer_type": None}, "answer_type must be str, got None"),
        ({"question_id": "7"}, "question_id must be int, got '7'"),
    ],
)
def test_a_broken_annotation_is_named(changes, message):
    with pytest.raises(ValueError, match=f"annotation: .*{message}|annotation, {message}"):
        parse_annotation({**annotation_record(7, SPLIT_DECISION), **changes})


def test_llavas_answers_are_scored_and_broken_lines_counted(tmp_path):
    answers = tmp_path / "merge.jsonl"
    answers.write_text('{"question_id": 1, "text": "cat"}\n\n{"question_id": 2,\n')
    records = [annotation_record(number, SPLIT_DECISION) for number in (1, 2)]
    annotations = write_json(tmp_path / "annotations.json", {"annotations": records})
    arguments = ("--answers", answers, "--annotations", annotations)
    refused = invoke(app, *arguments)
    assert refused.exit_code == 1
    assert "1 annotated questions have no answer, the first is 2" in refused.stderr
    outcome = invoke(app, *arguments, "--answered-only", "-o", tmp_path / "report.json")
    assert outcome.exit_code == 0, outcome.output
    assert "answers that could not be read: 1" in outcome.stderr
    counts = read_report(tmp_path / "report.json").counts
    assert counts == ItemCounts(num_items=1, num_missing=1, num_unparsable=1)


def test_an_answer_line_without_its_text_is_named(tmp_path):
    answers = write_lines(tmp_path / "a.jsonl", [{"question_id": 1, "text": ""}, {"text": "x"}])
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: question_id must be int or str"):
        read_intact_answers(answers)


def test_a_result_without_its_answer_is_named(tmp_path):
    results = write_json(tmp_path / "r.json", [{"question_id": 1, "text": "x"}])
    with pytest.raises(ValueError, match=r"r\.json, \[0\]: answer must be str, got None"):
        read_intact_answers(results)


def test_the_command_makes_the_upload_of_a_split(tmp_path):
    answers = tmp_path / "merge.jsonl"
    lines = ('{"question_id": 5, "text": "Two dogs."}', "broken", '{"question_id": 9, "text": "x"}')
    answers.write_text("\n".join(lines))
    questions = write_lines(tmp_path / "split.jsonl", [{"question_id": 5}, {"question_id": 4}])
    upload = tmp_path / "upload.json"
    arguments = ("--answers", answers, "--questions", questions, "--submission", upload)
    outcome = invoke(app, *arguments)
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(upload.read_text()) == [
        {"question_id": 5, "answer": "2 dogs"},
        {"question_id": 4, "answer": ""},
    ]
    for problem in ("without an answer: 1", "to no question: 1", "could not be read: 1"):
        assert problem in outcome.stderr
    again = invoke(app, *arguments)
    assert again.exit_code == 1
    assert "pass --force" in again.stderr
    assert invoke(app, *arguments, "--force").exit_code == 0


def test_the_command_says_what_it_needs(tmp_path):
    answers = write_lines(tmp_path / "a.jsonl", [])
    nothing = invoke(app, "--answers", answers)
    assert nothing.exit_code == 1
    assert "name --annotations" in nothing.stderr
    no_list = invoke(app, "--answers", answers, "--submission", tmp_path / "upload.json")
    assert no_list.exit_code == 1
    assert "--submission needs --questions" in no_list.stderr


def test_files_of_different_splits_are_refused(tmp_path):
    questions = [{"question_id": 2, "image_id": 1, "question": "what?"}]
    records = [annotation_record(1, SPLIT_DECISION)]
    outcome = invoke(
        app,
        "--answers", write_json(tmp_path / "r.json", [{"question_id": 1, "answer": "cat"}]),
        "--annotations", write_json(tmp_path / "a.json", {"annotations": records}),
        "--questions", write_json(tmp_path / "q.json", {"questions": questions}),
    )  # fmt: skip
    assert outcome.exit_code == 1
    assert "name the two files of one split" in outcome.stderr


def test_the_help_shows_a_working_example():
    help_text = invoke(app, "--help").stdout
    assert "python -m eval.vqav2" in help_text
    assert "--annotations" in help_text


def test_llavas_questions_come_with_their_pictures(tmp_path):
    folder = tmp_path / "vqav2"
    question = {"question_id": 3, "image": "COCO_test2015_1.jpg", "text": "what?", "category": "d"}
    write_lines(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", [question])
    with pytest.raises(
        FileNotFoundError, match=r"test2015_1\.jpg, .* not exist; .*cocodataset\.org"
    ):
        load_questions(tmp_path)
    write_picture(folder / "test2015" / "COCO_test2015_1.jpg")
    (loaded,) = load_questions(tmp_path)
    assert (loaded.question_id, loaded.prompt, loaded.category) == (3, "what?", "d")
    assert loaded.image == folder / "test2015" / "COCO_test2015_1.jpg"


def test_questions_of_the_annotated_split_are_asked_as_llava_asks(tmp_path):
    folder = tmp_path / "vqav2"
    record = {"question_id": 3, "image_id": 42, "question": "What is it?"}
    write_json(folder / "v2_OpenEnded_mscoco_val2014_questions.json", {"questions": [record]})
    write_picture(folder / "val2014" / "COCO_val2014_000000000042.jpg")
    (loaded,) = load_questions(tmp_path, split=Split.VAL)
    suffix = "Answer the question using a single word or phrase."
    assert loaded.prompt == f"What is it?\n{suffix}"
    assert loaded.image == folder / "val2014" / "COCO_val2014_000000000042.jpg"


def test_missing_questions_say_where_to_get_them(tmp_path):
    message = r"test-dev2015\.jsonl does not exist; get it from LLaVA's eval\.zip .* put it there$"
    with pytest.raises(FileNotFoundError, match=message):
        load_questions(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"questions\.json does not exist; .*visualqa\.org"):
        load_questions(tmp_path, split=Split.VAL)


def test_answers_to_a_split_without_public_answers_are_counted_not_scored(tmp_path):
    path = tmp_path / "vqav2" / "llava_vqav2_mscoco_test-dev2015.jsonl"
    write_lines(path, [{"question_id": 1}, {"question_id": 2}])
    answers = [AnswerLine(1, "x"), AnswerLine(1, "y"), AnswerLine(3, "z")]
    report = score_answers(answers, tmp_path)
    assert report.metrics == {"accuracy": None}
    assert report.counts == ItemCounts(2, num_missing=1, num_duplicate=1, num_extra=1)
    assert "test-dev has no public answers" in report.notes[0]


def test_answers_to_the_annotated_split_are_scored_below_data(tmp_path):
    records = [annotation_record(1, ["yes"] * 10)]
    write_json(tmp_path / "vqav2/v2_mscoco_val2014_annotations.json", {"annotations": records})
    answers = [AnswerLine(1, "Yes")]
    assert score_answers(answers, tmp_path, split=Split.VAL).metrics == {"accuracy": 0.0}
    report = score_answers(answers, tmp_path, split=Split.VAL, normalization=Normalization.ALWAYS)
    assert report.metrics == {"accuracy": 100.0}
    assert report.settings["normalization"] == "always"


def test_the_upload_covers_the_whole_test_split(tmp_path):
    path = tmp_path / "vqav2" / "llava_vqav2_mscoco_test2015.jsonl"
    write_lines(path, [{"question_id": 2}, {"question_id": 1}])
    write_submission([AnswerLine(1, "It's")], tmp_path, tmp_path / "upload.json")
    assert json.loads((tmp_path / "upload.json").read_text()) == [
        {"question_id": 2, "answer": ""},
        {"question_id": 1, "answer": "it 's"},
    ]


def test_of_the_annotated_split_answers_are_written_as_they_are(tmp_path):
    path = tmp_path / "results.json"
    write_submission([AnswerLine(1, "It's")], tmp_path, path, split=Split.VAL)
    assert json.loads(path.read_text()) == [{"question_id": 1, "answer": "It's"}]
