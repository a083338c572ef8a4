"""TextVQA's scores against M4C's and LLaVA's, and the rules and files around them."""

from operator import itemgetter

import pytest

from eval.answer_files import AnswerLine, write_answers
from eval.report import GroupScore, ItemCounts, read_report
from eval.textvqa import (
    WITH_OCR,
    WITHOUT_OCR,
    Annotation,
    accuracy,
    answer_scores,
    app,
    load_questions,
    percent,
    question_of,
    read_annotations,
    score_annotated,
    score_answers,
    variant_of,
)
from tests.eval.benchmark_files import invoke, write_json, write_lines, write_picture
from tests.eval.scoring_goldens import load_cases

SUFFIX = "\nAnswer the question using a single word or phrase."
PROMPTS = load_cases("textvqa_prompt_parse")
TRUTHS = ("stop",) * 5 + ("go",) * 5


def with_ocr(question, tokens="A, B"):
    return f"{question}\nReference OCR token: {tokens}{SUFFIX}"


def answer(image_id, text, question="What is it?"):
    return AnswerLine(image_id, text, prompt=with_ocr(question))


@pytest.mark.parametrize("case", load_cases("vqa_accuracy"), ids=itemgetter("id"))
def test_accuracies_equal_those_of_m4c(case):
    expected = case["expected"]
    assert accuracy(case["pred"], case["gt_answers"]) == expected["m4c_accuracy_0_1"]
    assert answer_scores(case["gt_answers"]) == expected["m4c_unique_answer_scores"]


@pytest.mark.parametrize("case", load_cases("vqa_dataset"), ids=itemgetter("id"))
def test_the_command_prints_and_stores_the_score_of_m4c(case, tmp_path):
    items = [(f"image {number}", item) for number, item in enumerate(case["items"])]
    records = [
        {"image_id": image_id, "question": "What is it?", "answers": item["gt_answers"]}
        for image_id, item in items
    ]
    annotations = write_json(tmp_path / "TextVQA_0.5.1_val.json", {"data": records})
    answers = tmp_path / "answers.jsonl"
    write_answers([answer(image_id, item["pred"]) for image_id, item in items], answers)
    outcome = invoke(
        app, "--answers", answers, "--annotations", annotations, "-o", tmp_path / "report.json"
    )
    assert outcome.exit_code == 0, outcome.output
    expected = f"{100 * case['expected']['m4c_accuracy_0_1']:.2f}"
    report = read_report(tmp_path / "report.json")
    assert f"{report.metrics['accuracy']:.2f}" == expected
    assert expected in outcome.stdout
    assert f"prompts with OCR tokens: {len(items)}" in outcome.stderr
    assert report.counts == ItemCounts(num_items=len(items))


@pytest.mark.parametrize("case", PROMPTS, ids=itemgetter("id"))
def test_questions_are_found_in_prompts_as_officially(case):
    if "error" in case:
        with pytest.raises(ValueError, match="no question can be found in the prompt"):
            question_of(case["prompt"])
    else:
        assert question_of(case["prompt"]) == case["question"]


@pytest.mark.parametrize(
    "prompt",
    [
        "What is it?",
        "",
        f"What\nis it?{SUFFIX}",
        f"What is it?\nReference OCR token:A{SUFFIX}",  # no blank before the token
        with_ocr("What is it?", tokens="A\nB"),
        f"OCR tokens: A\nB{SUFFIX}",  # not read as the forms that have no marks
        "OCR tokens: A. Question: What is it?\nReference OCR token: B\nShort answer:",
    ],
)
def test_other_prompts_are_errors(prompt):
    with pytest.raises(ValueError, match="no question can be found in the prompt"):
        question_of(prompt)


def test_the_first_marked_question_is_taken():
    prompt = "OCR tokens: Question: Ä? Short answer: X. Question: B? Short answer:"
    assert question_of(prompt) == "ä?"


def test_two_lines_are_a_question_even_if_they_name_tokens():
    assert question_of("Reference OCR token: A\nWhat?") == "reference ocr token: a"


def test_prompts_with_and_without_tokens_are_told_apart():
    assert variant_of(with_ocr("What?", tokens="")) == WITH_OCR
    assert variant_of("OCR tokens: A. Question: What? Short answer:") == WITH_OCR
    assert variant_of(f"What?{SUFFIX}") == WITHOUT_OCR


def test_the_report_says_which_prompts_were_asked():
    annotations = [Annotation("a", "What is it?", TRUTHS), Annotation("b", "Why?", TRUTHS)]
    answers = [answer("a", "stop"), AnswerLine("b", "Nothing", prompt=f"why?{SUFFIX}")]
    report = score_annotated(answers, annotations)
    assert report.groups == (GroupScore(WITH_OCR, 1, 100.0), GroupScore(WITHOUT_OCR, 1, 0.0))
    assert report.settings == {"prompts": [WITH_OCR, WITHOUT_OCR]}
    assert report.notes == ("prompts with OCR tokens: 1", "prompts without OCR tokens: 1")
    assert report.metrics == {"accuracy": 50.0}


def test_both_sides_are_always_normalised():
    assert accuracy("It's, the STOP?", ["it 's stop"] * 10) == 1
    assert accuracy("two", ["2"] * 10) == 1


@pytest.mark.parametrize("text", ["", "。", "stops"])
def test_an_answer_that_nobody_gave_scores_nothing(text):
    assert accuracy(text, TRUTHS) == 0


def test_percentages_are_rounded_as_the_official_script_prints_them():
    assert percent([0.40625]) == float(f"{40.625:.2f}") == 40.62


def test_pictures_are_found_by_id_and_question_whatever_its_case():
    annotations = [Annotation("a", "WHAT IS IT?", TRUTHS), Annotation("a", "Why?", ("x",) * 10)]
    report = score_annotated([answer("a", "x", "why?"), answer("a", "x")], annotations)
    assert [item.score for item in report.items] == [1.0, 0.0]
    assert [item.item_id for item in report.items] == ["a: Why?", "a: WHAT IS IT?"]
    assert report.items[1].details == {"answer": "x", "expected": "stop"}


def test_every_line_counts_and_what_is_missing_is_stated():
    annotations = [Annotation("a", "What is it?", TRUTHS), Annotation("b", "Why?", TRUTHS)]
    report = score_annotated([answer("a", "stop"), answer("a", "no")], annotations)
    assert report.metrics == {"accuracy": 50.0}
    assert report.counts == ItemCounts(num_items=2, num_missing=1, num_duplicate=1)


def test_of_annotations_of_one_question_the_last_counts_and_each_has_its_line():
    annotations = [
        Annotation("a", "What is it?", TRUTHS),
        Annotation("a", "what is it?", ("x",) * 10),
    ]
    report = score_annotated([answer("a", "x"), answer("a", "x")], annotations)
    assert report.metrics == {"accuracy": 100.0}
    assert report.counts == ItemCounts(num_items=2)


def test_an_answer_to_no_annotated_question_is_an_error_that_names_it():
    with pytest.raises(ValueError, match="picture 'b': question 'what is it\\?' is not annotated"):
        score_annotated([answer("b", "x")], [Annotation("a", "What is it?", TRUTHS)])


def test_a_prompt_without_a_question_is_an_error_that_names_the_picture():
    with pytest.raises(ValueError, match="picture 'a': no question can be found in the prompt ''"):
        score_annotated([AnswerLine("a", "x")], [Annotation("a", "What is it?", TRUTHS)])


def test_other_than_ten_ground_truths_are_an_error_that_names_the_question():
    message = r"picture 'a', question 'What is it\?': expected 10 ground truths .*, got 9"
    with pytest.raises(ValueError, match=message):
        score_annotated([answer("a", "x")], [Annotation("a", "What is it?", TRUTHS[:9])])


def test_no_answers_are_an_error():
    with pytest.raises(ValueError, match="no answer to score"):
        score_annotated([], [Annotation("a", "What is it?", TRUTHS)])


def test_a_broken_annotation_is_named(tmp_path):
    path = write_json(tmp_path / "val.json", {"data": [{"image_id": 1, "question": "?"}]})
    with pytest.raises(ValueError, match=r"val\.json, data\[0\]: image_id must be str, got 1"):
        read_annotations(path)
    with pytest.raises(ValueError, match="must hold a list data"):
        read_annotations(write_json(path, {"annotations": []}))
    with pytest.raises(ValueError, match="must hold a list data, got an empty one"):
        read_annotations(write_json(path, {"data": []}))
    record = {"image_id": "a", "question": "Why?", "answers": list(TRUTHS[:9])}
    with pytest.raises(
        ValueError, match=r"data\[0\]: answers must be 10 texts, got 9; get the file"
    ):
        read_annotations(write_json(path, {"data": [record]}))


@pytest.mark.parametrize("truths", ["a" * 10, [1] * 10])
def test_ground_truths_must_be_texts(truths, tmp_path):
    record = {"image_id": "a", "question": "?", "answers": truths}
    with pytest.raises(ValueError, match=r"data\[0\]: answers must be a list of texts"):
        read_annotations(write_json(tmp_path / "val.json", {"data": [record]}))


def test_questions_and_annotations_are_found_below_data(tmp_path):
    folder = tmp_path / "textvqa"
    question = {"question_id": "a", "image": "a.jpg", "text": with_ocr("Why?")}
    write_lines(folder / "llava_textvqa_val_v051_ocr.jsonl", [question])
    with pytest.raises(
        FileNotFoundError, match=r"train_images/a\.jpg, .* not exist; .*textvqa\.org"
    ):
        load_questions(tmp_path)
    write_picture(folder / "train_images" / "a.jpg")
    (loaded,) = load_questions(tmp_path)
    assert loaded.image == folder / "train_images" / "a.jpg"
    answers = [AnswerLine("a", "Go!", prompt=loaded.text)]
    with pytest.raises(FileNotFoundError, match=r"0\.5\.1_val\.json does not exist; .*textvqa"):
        score_answers(answers, tmp_path)
    record = {"image_id": "a", "question": "Why?", "answers": list(TRUTHS)}
    write_json(folder / "TextVQA_0.5.1_val.json", {"data": [record]})
    assert score_answers(answers, tmp_path).metrics == {"accuracy": 100.0}


def test_the_command_names_what_is_wrong_in_one_line(tmp_path):
    write_answers([answer("b", "x")], tmp_path / "answers.jsonl")
    record = {"image_id": "a", "question": "Why?", "answers": list(TRUTHS)}
    annotations = write_json(tmp_path / "val.json", {"data": [record]})
    arguments = ("--answers", tmp_path / "answers.jsonl", "--annotations", annotations)
    outcome = invoke(app, *arguments)
    assert outcome.exit_code == 1
    assert outcome.stderr.startswith("error: answer to picture 'b'")
    existing = invoke(app, *arguments, "-o", annotations)
    assert existing.exit_code == 1
    assert "pass --force" in existing.stderr
