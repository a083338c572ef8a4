"""The benchmark of speed says what it compared."""

from pathlib import Path

from typer.testing import CliRunner

from eval.bench import app
from tests.mllm.tiny_pipeline import build_tiny_pipeline


def run(*options: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["vqa", *map(str, options)])
    assert result.exit_code == code, result.output
    return result.output


def test_batched_answers_are_compared_with_single_ones(tmp_path: Path) -> None:
    build_tiny_pipeline().save_pretrained(tmp_path)
    said = run("--model", tmp_path, "--questions", 6, "--batch-size", 4, "--device", "cpu")
    assert "6 questions, cpu, 1 threads" in said
    assert "6 of 6 answers are the same" in said
    assert "ratio" in said


def test_more_questions_than_there_are_is_an_error(tmp_path: Path) -> None:
    build_tiny_pipeline().save_pretrained(tmp_path)
    said = run("--model", tmp_path, "--questions", 2000, code=1)
    assert "error: there are 1020 questions, got --questions 2000" in said
