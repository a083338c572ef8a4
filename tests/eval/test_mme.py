"""MME's scorer and converter against recorded official results, and its files and commands."""

import json
from operator import itemgetter

import pytest
from typer.testing import CliRunner

from eval.answer_files import AnswerLine, write_answers
from eval.mme import app, load_questions, score_answers, score_results, write_submission
from eval.mme_results import (
    ALL_SUBTASKS,
    SUBTASKS,
    Row,
    convert_answers,
    group_total,
    parse_answer,
    parse_rows,
    read_truth,
    results_text,
    score_subtask,
)
from tests.eval.benchmark_files import score_by_command, write_lines, write_picture
from tests.eval.scoring_goldens import load_cases

SUFFIX = "\nAnswer the question using a single word or phrase."


@pytest.mark.parametrize("case", load_cases("mme_parse"), ids=itemgetter("id"))
def test_answers_are_read_as_officially(case):
    assert parse_answer(case["text"]) == case["expected_in_file_pipeline"]
    assert parse_answer(case["text"].lower()) == case["expected_function_on_lowercase"]


@pytest.mark.parametrize("case", load_cases("mme_metrics"), ids=itemgetter("id"))
def test_subtasks_and_sums_equal_the_official_ones(case):
    scores = {
        name: score_subtask([Row(*row) for row in rows], name)
        for name, rows in case["subtasks"].items()
    }
    for group, expected in case["expected"].items():
        assert {name: scores[name].score for name in SUBTASKS[group]} == expected["subtasks"]
        assert group_total(scores, group) == expected["total"]
    for name, expected in case["expected_per_subtask"].items():
        score = scores[name]
        assert expected == {
            "TP": score.true_positives,
            "FN": score.false_negatives,
            "TN": score.true_negatives,
            "FP": score.false_positives,
            "precision": score.precision,
            "recall": score.recall,
            "other_num": score.num_other,
            "acc": score.accuracy,
        }


@pytest.mark.parametrize("case", load_cases("mme_edge"), ids=itemgetter("id"))
def test_edge_cases_equal_the_official_ones_or_are_errors(case):
    text = "".join(line + "\n" for line in case["existence_lines"])
    if case["error"] is None:
        rows = parse_rows(text, "existence.txt")
        assert score_subtask(rows, "existence").score == case["expected"]
    else:
        with pytest.raises(ValueError, match="existence"):
            score_subtask(parse_rows(text, "existence.txt"), "existence")


def write_release(folder, files):
    for name, lines in files.items():
        path = folder / "MME" / "MME_Benchmark_release_version" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("case", load_cases("mme_convert"), ids=itemgetter("id"))
def test_answers_are_converted_as_officially(case, tmp_path):
    write_release(tmp_path, case["ground_truth_files"])
    answers = [AnswerLine(**answer) for answer in case["answers"]]
    truth = read_truth(tmp_path / "MME" / "MME_Benchmark_release_version")
    converted = convert_answers(answers, truth)
    texts = {f"{name}.txt": results_text(rows) for name, rows in converted.items()}
    assert texts == case["expected_files"]


@pytest.mark.parametrize("case", load_cases("mme_convert"), ids=itemgetter("id"))
def test_the_convert_command_writes_the_official_folder(case, tmp_path):
    write_release(tmp_path, case["ground_truth_files"])
    write_answers([AnswerLine(**answer) for answer in case["answers"]], tmp_path / "a.jsonl")
    output = tmp_path / "results"
    arguments = ["convert", "--answers", tmp_path / "a.jsonl", "--data", tmp_path]
    result = CliRunner().invoke(app, [*map(str, arguments), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert {path.name: path.read_text() for path in output.iterdir()} == case["expected_files"]
    again = CliRunner().invoke(app, [*map(str, arguments), "-o", str(output)])
    assert again.exit_code == 1
    assert "exists already; pass --force" in again.output


@pytest.mark.parametrize("case", load_cases("mme_metrics")[:2], ids=itemgetter("id"))
def test_a_folder_for_the_official_tool_is_scored_by_the_command(case, tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for name, rows in case["subtasks"].items():
        text = "".join("\t".join(row) + "\n" for row in rows)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    output = tmp_path / "report.json"
    result = CliRunner().invoke(app, ["--answers", str(folder), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert "perception" in result.output
    assert "cognition" in result.output
    report = json.loads(output.read_text())
    assert report["metrics"] == {
        group.lower(): expected["total"] for group, expected in case["expected"].items()
    }
    scores = {group["group"]: group["score"] for group in report["groups"]}
    assert scores == {
        name: score
        for expected in case["expected"].values()
        for name, score in expected["subtasks"].items()
    }


def complete_run(folder, num_images=2):
    """A release with every subtask, and right answers to all of its questions."""
    files, answers = {}, []
    for subtask in ALL_SUBTASKS:
        for number in range(num_images):
            lines = [f"Is this {word}? Please answer yes or no.\t{word}" for word in ("Yes", "No")]
            files[f"{subtask}/{number}.txt"] = lines
            answers += [
                AnswerLine(f"{subtask}/{number}.png", word, prompt=f"Is this {word}?{SUFFIX}")
                for word in ("Yes", "No")
            ]
    write_release(folder, files)
    return answers


def test_a_perfect_run_has_both_full_sums(tmp_path):
    report = score_by_command(app, complete_run(tmp_path), tmp_path)
    assert report["metrics"] == {"perception": 2000, "cognition": 800}
    assert report["counts"]["num_items"] == 56
    assert report["notes"] == []


def test_an_answer_that_is_neither_yes_nor_no_is_wrong_and_counted(tmp_path):
    answers = complete_run(tmp_path)
    answers[0] = AnswerLine(answers[0].question_id, "", prompt=answers[0].prompt)
    report = score_answers(answers, tmp_path)
    assert report.groups[0].score == 75 + 50
    assert report.counts.num_unparsable == 1


def test_tabs_and_ends_of_lines_in_answers_become_blanks(tmp_path):
    answers = complete_run(tmp_path)
    answers[0] = AnswerLine(answers[0].question_id, "Yes\tor\r\nnot", prompt=answers[0].prompt)
    report = score_answers(answers, tmp_path)
    assert report.metrics["perception"] == 2000
    assert report.notes == ("tabs and ends of lines in 1 answers became blanks",)
    write_submission(answers, tmp_path, tmp_path / "results")
    assert (
        (tmp_path / "results" / "existence.txt")
        .read_text()
        .startswith("0.txt\tIs this Yes? Please answer yes or no.\tYes\tYes or  not\n")
    )
    assert score_results(tmp_path / "results").metrics == report.metrics


def test_a_partial_run_has_no_sum(tmp_path):
    answers = complete_run(tmp_path)
    report = score_answers(answers[:7], tmp_path)
    assert report.metrics == {"perception": None, "cognition": None}
    assert report.groups[0].score == 200
    assert report.groups[1].score is None
    assert report.counts.num_missing == 49
    assert "count: an odd number of answers (not two about 1.txt): not scored" in report.notes
    assert "no answers to position, color" in report.notes[0]


def test_a_repeated_answer_is_counted(tmp_path):
    answers = complete_run(tmp_path)
    report = score_answers([*answers, *answers[-2:]], tmp_path)
    assert report.counts.num_duplicate == 2
    assert report.metrics == {"perception": 2000, "cognition": 800}


def test_pairs_of_different_pictures_are_named(tmp_path):
    answers = complete_run(tmp_path)
    answers[1], answers[2] = answers[2], answers[1]
    report = score_answers(answers, tmp_path)
    assert report.notes == (
        "existence: answers about different pictures stand where a pair is expected, first 0.txt "
        "and 1.txt; pairs are taken by position, as officially",
    )


def test_a_question_that_the_release_does_not_have_is_an_error(tmp_path):
    answers = complete_run(tmp_path)
    stranger = AnswerLine("count/0.png", "Yes", prompt="Is it cold?")
    with pytest.raises(ValueError, match=r"no question 'Is it cold\?  Please.*about count/0.png"):
        score_answers([*answers, stranger], tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\tq\tYes\tYes\tno\n", "line 1: expected image, question, .* got 5 fields"),
        ("a.jpg\tq\tYes\n", "got 3 fields"),
        ("a.jpg\tq\tYes\tYes\n", "count needs two lines for each picture, got 1, the last about a"),
        ("a.jpg\tq\tYes\tYes\n" * 3, "got 3"),
        ("", "got 0"),
        ("a.jpg\tq\tperhaps\tYes\n" * 2, "a.jpg: the true answer must be Yes or No, got 'perhaps'"),
    ],
)
def test_what_stops_the_official_tool_is_an_error_with_its_place(text, message):
    with pytest.raises(ValueError, match=message):
        score_subtask(parse_rows(text, "count.txt"), "count")


def test_a_results_folder_needs_every_subtask(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"existence.txt does not exist"):
        score_results(tmp_path)


def test_missing_files_are_named_with_their_source(tmp_path):
    with pytest.raises(NotADirectoryError, match="release_version is no folder; get its files"):
        score_answers([], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"llava_mme.jsonl does not exist"):
        load_questions(tmp_path)
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 1
    assert "MME needs --answers" in result.output


def test_questions_about_one_picture_share_its_id(tmp_path):
    write_lines(
        tmp_path / "MME" / "llava_mme.jsonl",
        [
            {"question_id": "count/0.png", "image": "count/0.png", "text": f"Is it {n}?{SUFFIX}"}
            for n in (1, 2)
        ],
    )
    write_picture(tmp_path / "MME" / "MME_Benchmark_release_version" / "count" / "0.png")
    questions = load_questions(tmp_path)
    assert [question.question_id for question in questions] == ["count/0.png"] * 2
    assert questions[1].prompt == f"Is it 2?{SUFFIX}"
