"""Small files in the formats of benchmarks, and their commands."""

import json

from typer.testing import CliRunner


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


def invoke(app, *arguments):
    """The outcome of a command with arguments of any kind."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
