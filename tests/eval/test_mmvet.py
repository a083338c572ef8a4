"""MM-Vet's averages against recorded official results; grading by a small server of our own."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from operator import itemgetter

import pytest
from typer.testing import CliRunner

from eval import mmvet_grader
from eval.answer_files import AnswerLine, write_answers
from eval.mmvet import (
    app,
    load_questions,
    read_any_answers,
    score_answers,
    write_submission,
)
from eval.mmvet_averages import average_grades
from eval.mmvet_grader import (
    RETRY_LINE,
    EndpointGrader,
    Reply,
    ask_grade,
    grading_message,
    parse_grade,
    read_table,
)
from tests.eval.benchmark_files import answer_lines, write_json, write_lines, write_picture
from tests.eval.scoring_goldens import load_cases

TABLE = "Compare.\n\nQuestion | Truth\n"


@pytest.mark.parametrize("case", load_cases("mmvet"), ids=itemgetter("id"))
def test_averages_equal_the_official_ones(case):
    items = case["items"]
    result = average_grades(
        {key: item["capability"] for key, item in items.items()},
        {key: item["scores"] for key, item in items.items()},
    )
    shared = {"total": result.total, "std": result.std, "runs": str(list(result.runs))}
    assert {**result.by_capability, **shared} == case["expected_capability"]
    assert {**result.by_set, **shared} == case["expected_integration"]


@pytest.mark.parametrize(
    ("text", "grade"),
    [
        ("0.5", 0.5),
        ("1", 1.0),
        ("0.3 because", 0.3),
        (" 0.3", None),  # the first word between blanks is empty
        ("0.4\n", 0.4),
        ("0.4\nfine", None),
        ("1.1", None),
        ("-0.1", None),
        ("nan", None),
        ("", None),
        ("good", None),
    ],
)
def test_a_grade_is_the_first_word_of_a_reply(text, grade):
    assert parse_grade(text) == grade


def test_the_message_is_the_table_and_one_open_row():
    message = grading_message(TABLE, "x?", truth="1<AND>2<OR>3", prediction="1 é")
    assert message == TABLE + "\nx? | 1 <AND> 2 <OR> 3 | 1 é | "


class ScriptedGrader:
    name = "script"

    def __init__(self, *texts):
        self.texts = list(texts)
        self.asked = []

    def ask(self, message, *, temperature):
        self.asked.append((message, temperature))
        return Reply(self.texts.pop(0), "script-1")


def test_an_unreadable_grade_is_asked_for_again_and_warmer():
    grader = ScriptedGrader("well", "2", "0.7")
    assert ask_grade(grader, "m").score == 0.7
    assert grader.asked == [("m", 0.0), ("m" + RETRY_LINE, 0.0), ("m" + RETRY_LINE, 0.5)]


def test_after_five_tries_the_grade_is_zero():
    grader = ScriptedGrader(*["well"] * 9)
    assert ask_grade(grader, "m").score == 0
    assert [temperature for _, temperature in grader.asked] == [0.0, 0.0, 0.5, 1.0, 1.5]
    assert ask_grade(ScriptedGrader(*["well"] * 4, "0.2"), "m").score == 0.2


class FakeEndpoint(BaseHTTPRequestHandler):
    """Answers with what the server's list holds: a text, or a status."""

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        self.server.requests.append((self.path, self.headers.get("Authorization"), body))
        reply = self.server.replies.pop(0) if self.server.replies else self.server.default
        if isinstance(reply, int):
            self.send_error(reply)
            return
        if reply is None:  # broken off
            self.send_response(200)
            self.send_header("Content-Length", "9")
            self.end_headers()
            return
        record = {"model": "gpt-4-0613-x", "choices": [{"message": {"content": reply}}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(record if isinstance(reply, str) else reply).encode())

    def log_message(self, *arguments):
        """Nothing on the tests' stderr."""


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with HTTPServer(("127.0.0.1", 0), FakeEndpoint) as server:
        server.requests, server.replies, server.default = [], [], "0.5"
        server.url = f"http://127.0.0.1:{server.server_port}/v1"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        yield server
        server.shutdown()


def test_the_endpoint_is_asked_as_officially(endpoint):
    grader = EndpointGrader("gpt-4-0613", endpoint.url, api_key="secret")
    assert grader.ask("grade é", temperature=0.5) == Reply("0.5", "gpt-4-0613-x")
    assert endpoint.requests == [
        (
            "/v1/chat/completions",
            "Bearer secret",
            {
                "model": "gpt-4-0613",
                "messages": [{"role": "user", "content": "grade é"}],
                "max_tokens": 3,
                "temperature": 0.5,
            },
        )
    ]
    assert "secret" not in repr(grader)


def test_a_busy_endpoint_is_asked_again(endpoint):
    endpoint.replies = [429, 503, None, "0.9"]
    grader = EndpointGrader("g", endpoint.url, waits=(0.0, 0.0, 0.0))
    assert grader.ask("m", temperature=0).text == "0.9"
    assert len(endpoint.requests) == 4


def test_an_endpoint_that_stays_busy_or_refuses_is_an_error(endpoint):
    grader = EndpointGrader("g", endpoint.url, waits=(0.0, 0.0))
    endpoint.replies = [500] * 3
    with pytest.raises(RuntimeError, match=r"does not answer \(HTTP Error 500.*grades so far are"):
        grader.ask("m", temperature=0)
    endpoint.requests.clear()
    endpoint.replies = [401]
    with pytest.raises(RuntimeError, match="HTTP Error 401"):
        grader.ask("m", temperature=0)
    assert len(endpoint.requests) == 1
    endpoint.replies = [{"error": "no"}]
    with pytest.raises(RuntimeError, match="sent no chat completion"):
        grader.ask("m", temperature=0)
    with pytest.raises(ValueError, match="must start with http"):
        EndpointGrader("g", "file:///etc/passwd")


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """Three questions and an evaluator file whose table is known by its hash."""
    write_json(
        tmp_path / "mm-vet" / "mm-vet.json",
        {
            f"v1_{number}": {
                "question": f"q{number}?",
                "answer": f"a{number}<AND>b",
                "capability": names,
            }
            for number, names in enumerate((["rec", "ocr"], ["ocr", "rec"], ["math"]))
        },
    )
    source = f'import json\nprompt = """{TABLE}"""\nother = "x"\n'
    (tmp_path / "mm-vet" / "mm-vet_evaluator.py").write_text(source)
    sha256 = hashlib.sha256(TABLE.encode()).hexdigest()
    monkeypatch.setattr(mmvet_grader, "TABLE_SHA256", sha256)
    return tmp_path


ANSWERS = answer_lines({0: "zero", 1: "", 2: "zwei é"})


def test_without_a_grader_nothing_is_scored(bundle):
    report = score_answers(ANSWERS, bundle)
    assert set(report.metrics.values()) == {None}
    assert report.headline == ("total", None)
    assert "not scored: not every answer has its grades; name a grader" in report.notes[-1]
    assert [item.score for item in report.items] == [None] * 3


def run_command(bundle, *more):
    write_answers(ANSWERS, bundle / "answers.jsonl")
    arguments = ["--answers", bundle / "answers.jsonl", "--data", bundle, *more]
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_grades_once_and_asks_nothing_the_second_time(bundle, endpoint, monkeypatch):
    monkeypatch.setenv("GRADER_KEY", "secret")
    endpoint.replies = ["0.2", "1.0", "0.4", "0.6", "0.0", "0.8"]
    output = bundle / "mmvet.json"
    options = ["--grader-url", endpoint.url, "--key-variable", "GRADER_KEY", "--runs", 2]
    result = run_command(bundle, *options, "-o", output)
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text())
    assert report["metrics"] == {"total": 50.0, "ocr": 45.0, "rec": 45.0, "math": 60.0, "std": 3.3}
    assert report["settings"]["grader"] == "gpt-4-0613"
    assert report["settings"]["models"] == ["gpt-4-0613-x"]
    assert report["settings"]["runs"] == [53.3, 46.7]
    assert [group["group"] for group in report["groups"]] == ["ocr_rec", "math"]
    first = endpoint.requests[0]
    assert first[1] == "Bearer secret"
    assert first[2]["messages"][0]["content"] == TABLE + "\nq0? | a0 <AND> b | zero | "
    stored = json.loads((bundle / "mmvet.grades.json").read_text())
    assert stored["grader"] == "gpt-4-0613"
    assert stored["grades"]["v1_2"] == {
        "prediction": "zwei é",
        "model": ["gpt-4-0613-x"] * 2,
        "content": ["0.4", "0.8"],
        "score": [0.4, 0.8],
    }
    assert "secret" not in (bundle / "mmvet.grades.json").read_text() + output.read_text()
    endpoint.requests.clear()
    again = run_command(bundle, *options, "-o", output, "--force")
    assert again.exit_code == 0, again.output
    assert json.loads(output.read_text()) == report
    # Stored grades are enough, without any endpoint.
    alone = run_command(bundle, "--grades", bundle / "mmvet.grades.json", "--runs", 2)
    assert alone.exit_code == 0, alone.output
    assert "50.00" in alone.output
    assert endpoint.requests == []


def test_a_stopped_run_goes_on_where_it_was(bundle):
    grades = bundle / "grades.json"
    with pytest.raises(IndexError):
        score_answers(ANSWERS, bundle, grader=ScriptedGrader("0.2"), grades=grades)
    rest = ScriptedGrader("0.4", "0.6")
    report = score_answers(ANSWERS, bundle, grader=rest, grades=grades)
    assert report.metrics["total"] == 40.0
    assert len(rest.asked) == 2


def test_a_changed_answer_is_graded_again(bundle):
    grades = bundle / "grades.json"
    score_answers(ANSWERS, bundle, grader=ScriptedGrader(*["0.5"] * 3), grades=grades)
    changed = [*ANSWERS[:2], AnswerLine(2, "drei")]
    assert score_answers(changed, bundle, grades=grades).metrics["total"] is None
    report = score_answers(changed, bundle, grader=ScriptedGrader("1"), grades=grades)
    assert report.metrics["math"] == 100.0


def test_grades_of_two_graders_do_not_mix(bundle):
    grades = bundle / "grades.json"
    score_answers(ANSWERS, bundle, grader=ScriptedGrader(*["0.5"] * 3), grades=grades)
    other = EndpointGrader("other", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match="holds grades of script, not of other"):
        score_answers(ANSWERS, bundle, grader=other, grades=grades)


def test_another_grader_and_unread_grades_are_noted(bundle):
    grader = ScriptedGrader("0.5", "0.5", *["?"] * 5)
    report = score_answers(ANSWERS, bundle, grader=grader, grades=bundle / "grades.json")
    assert report.metrics["math"] == 0
    assert report.notes == (
        "no grade could be read for 1 answers: they count 0, as officially",
        "graded by script: does not compare with grades of gpt-4-0613",
    )
    assert report.counts.num_unparsable == 1


def test_a_gap_is_an_error_before_anything_is_graded_and_else_not_scored(bundle):
    grader = ScriptedGrader()
    with pytest.raises(ValueError, match="MM-Vet grades complete runs only, got no answer to v1_2"):
        score_answers(ANSWERS[:2], bundle, grader=grader, grades=bundle / "grades.json")
    report = score_answers([*ANSWERS[:2], AnswerLine(9, "x"), AnswerLine(0, "y")], bundle)
    counts = report.counts
    assert (counts.num_items, counts.num_missing) == (3, 1)
    assert (counts.num_extra, counts.num_duplicate) == (1, 1)
    assert report.notes[-1] == "not scored: some questions have no answer"


def test_a_grader_needs_a_file_for_its_grades(bundle):
    with pytest.raises(ValueError, match="a grader needs a file to store its grades in"):
        score_answers(ANSWERS, bundle, grader=ScriptedGrader())
    (bundle / "grades.json").write_text("{}")
    with pytest.raises(ValueError, match=r"grades.json holds no stored grades"):
        score_answers(ANSWERS, bundle, grades=bundle / "grades.json")


def test_the_examples_are_read_from_the_official_file_and_checked(bundle):
    folder = bundle / "mm-vet"
    assert read_table(folder) == TABLE
    (folder / "mm-vet_evaluator.py").write_text('prompt = "another one"')
    with pytest.raises(ValueError, match=r"does not hold the official grading examples \(SHA-256"):
        read_table(folder)
    (folder / "mm-vet_evaluator.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"evaluator.py does not exist; grading needs"):
        read_table(folder)
    cells = [{"source": ["!pip install x\n"]}, {"source": ["prompt = (\n", f"{TABLE!r})"]}]
    write_json(folder / "mm-vet_evaluator.ipynb", {"cells": cells})
    assert read_table(folder) == TABLE


def test_the_submission_is_the_official_predictions_file(bundle):
    path = bundle / "predictions.json"
    write_submission([*ANSWERS, AnswerLine(0, "later")], bundle, path)
    assert json.loads(path.read_text()) == {"v1_0": "later", "v1_1": "", "v1_2": "zwei é"}
    answers = read_any_answers(path)
    assert score_answers(answers, bundle).counts.num_missing == 0
    path.write_text('{"v1_0": 3}')
    with pytest.raises(ValueError, match="v1_0: a prediction must be text, got 3"):
        read_any_answers(path)


def test_questions_are_loaded_and_missing_files_named(tmp_path):
    record = {"question_id": 0, "image": "v1_0.png", "text": "What?"}
    write_lines(tmp_path / "mm-vet" / "llava-mm-vet.jsonl", [record])
    with pytest.raises(FileNotFoundError, match=r"v1_0.png, the picture of question 0, does not"):
        load_questions(tmp_path)
    write_picture(tmp_path / "mm-vet" / "images" / "v1_0.png")
    (question,) = load_questions(tmp_path)
    assert (question.question_id, question.prompt) == (0, "What?")
    with pytest.raises(FileNotFoundError, match=r"mm-vet.json does not exist; get it from mm-vet"):
        score_answers([], tmp_path)
    write_json(tmp_path / "mm-vet" / "mm-vet.json", {"v1_0": {"question": "q"}})
    with pytest.raises(
        ValueError, match="v1_0: expected question, answer and a list capability of rec"
    ):
        score_answers([], tmp_path)
