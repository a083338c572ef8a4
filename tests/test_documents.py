"""What the documents tell people to type works: Python blocks run, commands parse and run."""

import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from eval.benchmarks import MODULES
from eval.examples import draw_example
from mllm.cli import app
from mllm.model import NANO_FOLDER
from mllm.pictures import example_names
from unitok.hub import CONFIG_FILE

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)\)")

needs_nano = pytest.mark.skipif(
    not (NANO_FOLDER / CONFIG_FILE).is_file(), reason="nano's weights are not embedded yet"
)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a document in one language; "" for commands."""
    return [
        text for found, text in FENCE.findall(path.read_text(encoding="utf-8")) if found == language
    ]


def command_lines(path: Path) -> Iterator[list[str]]:
    """Arguments of every command in a document, comments left out."""
    for block in blocks(path, ""):
        for line in block.replace("\\\n", " ").splitlines():
            if arguments := shlex.split(line, comments=True):
                yield arguments


def unitok_lines(path: Path) -> list[list[str]]:
    return [line[1:] for line in command_lines(path) if line[0] == "unitok"]


def parse(arguments: list[str]) -> None:
    """Parse as typer would, without running anything."""
    name, *rest = arguments
    typer.main.get_command(app).commands[name].make_context(name, rest).close()


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Path:
    """A working folder with the picture that the documents talk about."""
    monkeypatch.chdir(tmp_path)
    draw_example("shapes").save("photo.jpg")
    return tmp_path


ALL_LINES = [
    (path, line)
    for path in DOCUMENTS
    for line in unitok_lines(path)
    if line != ["COMMAND", "--help"]
]


@pytest.mark.parametrize(
    ("path", "line"),
    ALL_LINES,
    ids=[f"{path.name}: {shlex.join(line)}" for path, line in ALL_LINES],
)
def test_every_command_line_parses(path, line):
    parse(line)


def test_a_command_line_with_a_typo_does_not_parse():
    with pytest.raises(Exception, match="No such option"):
        parse(["generate", "a star", "-o", "a.png", "--num-imagse", "4"])


def test_the_readme_shows_commands_and_python():
    assert len(unitok_lines(README)) >= 6
    assert len(blocks(README, "python")) == 2


@needs_nano
def test_the_python_of_the_readme_runs(photo):
    for block in blocks(README, "python"):
        exec(compile(block, "README.md", "exec"), {})
    assert Image.open("decoded.png").size == Image.open("circle.png").size


@needs_nano
def test_the_commands_of_the_readme_run_in_their_order(photo):
    for line in unitok_lines(README):
        if line[0] == "convert" or "--model" in line:
            continue  # released weights
        result = CliRunner().invoke(app, line, input="/quit\n")
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert (photo / "decoded" / "pair.png").is_file()
    assert (photo / "hearts-3.png").is_file()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_modules_and_make_targets_in_commands_exist(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in command_lines(path):
        if line[0].endswith("python") and line[1] == "-m":
            assert importlib.util.find_spec(line[2]), line
        if line[0] == "make":
            targets = [word for word in line[1:] if "=" not in word]
            assert all(f"\n{target}: " in makefile for target in targets), line


EVAL_LINES = [
    line[2:]
    for line in command_lines(ROOT / "docs" / "benchmarks.md")
    if line[0].endswith("python") and line[2].startswith("eval.")
]


@pytest.mark.parametrize("line", EVAL_LINES, ids=shlex.join)
def test_every_command_of_the_benchmarks_parses(line):
    module, *arguments = line
    command = typer.main.get_command(importlib.import_module(module).app)
    if arguments[0] in getattr(command, "commands", {}):
        name, *arguments = arguments
        command = command.commands[name]
    command.make_context(module, arguments).close()


def test_the_benchmarks_have_a_command_for_every_benchmark_and_step():
    modules = {line[0] for line in EVAL_LINES}
    assert modules >= {name for name in MODULES.values() if name != "eval.scene_vqa"}
    steps = {line[1] for line in EVAL_LINES if line[0] == "eval.geneval"}
    assert steps == {"convert-detector", "run", "generate", "score", "compare"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_nobody_is_sent_to_another_project_of_the_same_name(path):
    assert "pip install unitok" not in path.read_text(encoding="utf-8")


@needs_nano
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    missing = [
        target
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not missing


def test_the_readme_names_every_example_and_keeps_the_place_of_the_scores():
    text = README.read_text(encoding="utf-8")
    assert all(f"`{name}`" in text or f"example:{name}`" in text for name in example_names())
    assert text.index("<!-- nano-scores -->\n") < text.index("<!-- /nano-scores -->")
