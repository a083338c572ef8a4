"""What docs/serving.md tells people to type works against a live server."""

import json
import shutil
import subprocess

import pytest
from PIL import Image

from mllm.pictures import example_path
from tests.test_documents import ROOT, blocks

DOCUMENT = ROOT / "docs" / "serving.md"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(example_path("star"), "photo.png")
    return tmp_path


def test_the_python_of_the_document_runs(server, folder, capsys):
    names = {}
    for block in blocks(DOCUMENT, "python"):
        exec(compile(block.replace(ADDRESS, server.url), DOCUMENT.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "[a picture of" in printed
    for name in ("drawn-0", "squares-1", "star-0", "star-1", "star-complete"):
        assert Image.open(f"{name}.png").size == (64, 64)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_commands_of_the_document_run(server, folder):
    (script,) = blocks(DOCUMENT, "sh")
    commands = script.replace("\\\n", " ").splitlines()
    answers = [
        subprocess.run(
            ["bash", "-c", command.replace(ADDRESS, server.url)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for command in commands
    ]
    chat, pictures, models, health, metrics = answers
    assert json.loads(chat)["choices"][0]["message"]["content"]
    assert json.loads(pictures)["data"][0]["seed"] == 5
    assert json.loads(models)["data"][0]["id"] == "nano"
    assert json.loads(health) == {"status": "ok"}
    assert "unitok_requests_total" in metrics
