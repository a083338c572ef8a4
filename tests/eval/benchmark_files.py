"""Small files in the formats of benchmarks, and their commands."""

import json

from PIL import Image
from typer.testing import CliRunner

from eval.answer_files import AnswerLine, write_answers


def write_json(path, content):
    """One JSON document; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_lines(path, records):
    """One JSON object a line; gives the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_text(text, encoding="utf-8")
    return path


def write_picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2)).save(path)


def answer_lines(texts, **fields):
    """Answers from a dict of texts by question id."""
    return [AnswerLine(question_id, text, **fields) for question_id, text in texts.items()]


def invoke(app, *arguments):
    """The outcome of a command with arguments of any kind."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def score_by_command(app, answers, data, *more):
    """Run `--answers FILE --data DATA -o FILE` and give back the stored report."""
    path = data / "answers_of_a_test.jsonl"
    write_answers(answers, path)
    output = data / "report_of_a_test.json"
    result = invoke(app, "--answers", path, "--data", data, "-o", output, "--force", *more)
    assert result.exit_code == 0, result.output
    return json.loads(output.read_text(encoding="utf-8"))
