"""MMBench's rules against recorded official results, and its table, submission and command."""

import base64
import csv
import io
import sys
from operator import itemgetter

import pytest
from PIL import Image

from eval.answer_files import AnswerLine
from eval.mmbench import app, infer_option, load_questions, score_answers, write_submission
from tests.eval.benchmark_files import answer_lines, score_by_command
from tests.eval.scoring_goldens import load_cases

SPLIT = "mmbench_dev_20230712"
LETTER = "\nAnswer with the option's letter from the given choices directly."
CHOICES = {"A": "Red car", "B": "blue car", "C": "a dog", "D": "None of these"}


@pytest.mark.parametrize("case", load_cases("mmbench_option_inference"), ids=itemgetter("id"))
def test_options_are_inferred_as_officially(case):
    assert (infer_option(case["text"], case["choices"]) or False) == case["expected"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Sorry, I can't help with images of people yet. B", "Z"),
        ("I can't process this file.", "Z"),
        ("I'm sorry, but without the image provided I see no dog", "Z"),
        ("cannot determine the answer", None),  # the phrases are matched as they are
        ("Failed to obtain answer via API: a dog", "C"),  # no letter, but the text is looked at
        ("Failed to obtain answer via API, answer is B", None),
        ("Z", "Z"),
        ("Z, answer is B", "B"),  # B is a token, so Z is not looked at
        ("Z the answer is **b", "Z"),
        ("B one two three", "B"),
        ("B one two three four", None),  # more than three tokens follow
        ("B one two three B", None),  # the first place counts
        ("The answer is **B** because of one thing and another", "B"),
        ("Both A and B look right but the correct answer is\n*a", "A"),
        ("the answer is clear", "C"),  # nothing need follow the letter
        ("the answer is E", None),
        ("{B}#", "B"),
        ("a dog and a blue car", None),
        ("xA DOGx", "C"),
        ("a dog" + " " * 62, None),  # longer than twice all options
        ("a dog" + " " * 61, "C"),
    ],
)
def test_every_rule_of_the_inference_holds(text, expected):
    assert infer_option(text, CHOICES) == expected


def test_an_option_that_the_question_does_not_have_is_not_inferred():
    assert infer_option("D", {"A": "x", "B": "y"}) is None
    assert infer_option("the answer is d", {"A": "xx", "B": "yy"}) is None
    assert infer_option("E", {"A": "x", "E": "y"}) == "E"


def picture(color="red", *, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, format=kind)
    return base64.b64encode(buffer.getvalue()).decode()


def table_rows(**changes):
    """Two questions of two options with every shift, each of another category."""
    rows = []
    for base, category in ((1, "ocr"), (2, "logic")):
        for shift, (first, second, answer) in enumerate((("cat", "dog", "A"), ("dog", "cat", "B"))):
            rows.append(
                {
                    "index": base + shift * 1_000_000,
                    "question": 'Who says "no"?\tWho?' if base == 1 else "Who?",
                    "hint": "A zoo" if base == 1 else "nan",
                    **{"A": first, "B": second, "C": "", "D": "nan"},
                    **{"answer": answer, "category": category, "image": picture()},
                    **{"source": "s", "l2-category": "reasoning", "comment": "", "split": "dev"},
                    **changes,
                }
            )
    return rows


def write_table(folder, rows, split=SPLIT):
    path = folder / "mmbench" / f"{split}.tsv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


RIGHT = {1: "A", 1_000_001: "B", 2: "A.", 1_000_002: "cat"}


@pytest.mark.parametrize(
    ("changes", "circular", "vanilla"),
    [
        ({}, 100, 100),
        ({1_000_001: "A"}, 50, 100),
        ({1: "B"}, 50, 50),
        ({1: "no idea", 1_000_002: "Z"}, 0, 50),
    ],
)
def test_circular_eval_needs_every_shift_and_vanilla_eval_the_first(
    changes, circular, vanilla, tmp_path
):
    write_table(tmp_path, table_rows())
    report = score_by_command(app, answer_lines({**RIGHT, **changes}), tmp_path)
    assert report["metrics"] == {"circular": circular, "vanilla": vanilla}
    assert report["notes"] == []
    assert report["settings"]["split"] == SPLIT


def test_categories_are_scored_by_circular_eval(tmp_path):
    write_table(tmp_path, table_rows())
    report = score_answers(answer_lines({**RIGHT, 1: "B"}), tmp_path)
    assert [(group.group, group.num_items, group.score) for group in report.groups] == [
        ("reasoning", 2, 50.0),
        ("ocr", 1, 0.0),
        ("logic", 1, 100.0),
    ]


def test_missing_duplicate_extra_and_unreadable_answers_are_counted(tmp_path):
    write_table(tmp_path, table_rows())
    answers = answer_lines({1: "B", 1_000_001: "", 2: "A", 77: "é"})
    report = score_answers([*answers, AnswerLine(1, "A")], tmp_path)
    counts = report.counts
    assert (counts.num_items, counts.num_missing, counts.num_duplicate) == (4, 1, 1)
    assert (counts.num_extra, counts.num_unparsable) == (1, 1)
    assert report.metrics == {"circular": 0, "vanilla": 100}


def test_a_table_without_answers_or_shifts_leaves_scores_undefined(tmp_path):
    write_table(tmp_path, table_rows(answer=""))
    report = score_answers(answer_lines(RIGHT), tmp_path)
    assert report.metrics == {"circular": None, "vanilla": None}
    assert "send the submission to the leaderboard" in report.notes[0]
    write_table(tmp_path, table_rows()[::2])
    report = score_answers(answer_lines(RIGHT), tmp_path)
    assert report.metrics == {"circular": None, "vanilla": 100}
    assert report.notes == ("no options are shifted: CircularEval cannot be computed",)
    write_table(tmp_path, table_rows()[:3])
    report = score_answers(answer_lines(RIGHT), tmp_path)
    assert report.notes == (
        "questions that lack some shifts of their options, and are easier for it: 1",
    )


def test_the_letter_sentence_is_sent_but_not_stored(tmp_path):
    write_table(tmp_path, table_rows())
    first, _, third, _ = load_questions(tmp_path)
    assert first.text == 'A zoo\nWho says "no"?\tWho?\nA. cat\nB. dog'
    assert first.prompt == first.text + LETTER
    assert third.text == "Who?\nA. cat\nB. dog"
    assert (first.question_id, first.category) == (1, "ocr")


def test_pictures_are_shared_and_may_refer_to_another_row(tmp_path):
    rows = table_rows()
    rows[1]["image"], rows[2]["image"] = "1", picture("blue")
    write_table(tmp_path, rows)
    questions = load_questions(tmp_path)
    assert questions[1].image is questions[0].image
    assert questions[2].image.getpixel((0, 0)) == (0, 0, 255)
    # Pillow would start another program for the second.
    for text in ("no picture!", picture(kind="EPS")):
        write_table(tmp_path, table_rows(image=text))
        with pytest.raises(ValueError, match="row 1 holds no picture in base64; download"):
            load_questions(tmp_path)


def test_a_picture_longer_than_the_usual_limit_of_a_field_is_read(tmp_path):
    rows = table_rows(comment="x" * 200_000)
    write_table(tmp_path, rows)
    assert score_answers(answer_lines(RIGHT), tmp_path).metrics["vanilla"] == 100


def test_the_submission_has_the_official_columns(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    write_table(tmp_path, table_rows())
    path = tmp_path / "submission.xlsx"
    write_submission(answer_lines({1: "A", 2: "日本"}), tmp_path, path)
    columns, first, shifted, second, _ = openpyxl.load_workbook(path).active.values
    assert columns == ("index", "question", "A", "B", "C", "D", "prediction", "answer", "split")
    assert first == (1, 'Who says "no"?\tWho?', "cat", "dog", None, None, "A", "A", "dev")
    assert shifted[6] is None
    assert second[6] == "日本"


def test_without_openpyxl_the_submission_says_what_to_install(tmp_path, monkeypatch):
    write_table(tmp_path, table_rows())
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(RuntimeError, match="needs openpyxl: pip install openpyxl"):
        write_submission([], tmp_path, tmp_path / "submission.xlsx")


def test_rows_without_an_answer_can_be_left_out(tmp_path):
    write_table(tmp_path, table_rows())
    answers = answer_lines({1: "A", 1_000_001: "A", 2: "B"})
    assert score_answers(answers, tmp_path).metrics == {"circular": 0, "vanilla": 50}
    report = score_answers(answers[:2], tmp_path, answered_only=True)
    assert report.metrics == {"circular": 0, "vanilla": 100}
    assert (report.counts.num_items, report.counts.num_missing) == (2, 2)
    assert report.settings["answered_only"] is True


def test_another_table_can_be_named(tmp_path):
    write_table(tmp_path, table_rows(), split="mine")
    report = score_by_command(app, answer_lines(RIGHT), tmp_path, "--split", "mine")
    assert report["settings"]["split"] == "mine"


def test_missing_and_broken_tables_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"20230712.tsv does not exist; get it from down"):
        load_questions(tmp_path)
    write_table(tmp_path, [{"question": "Who?"}])
    with pytest.raises(ValueError, match=r"must have the columns index, .*, B, lacks index, A, B"):
        load_questions(tmp_path)
    write_table(tmp_path, table_rows(index="one"))
    with pytest.raises(ValueError, match="row 1: index must be a number, got 'one'"):
        load_questions(tmp_path)
