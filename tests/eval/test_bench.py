"""The benchmarks of speed say what they compared."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from eval import bench
from eval.bench import app
from eval.tokenizer_speed import VARIANTS, SpeedRequest, agreement, build_variant, measure
from mllm.image_tokenizer import compile_tokenizer
from tests.mllm.tiny_pipeline import build_tiny_pipeline, build_tiny_tokenizer


def run(*options: object, command: str = "vqa", code: int = 0) -> str:
    result = CliRunner().invoke(app, [command, *map(str, options)])
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


# -- the tokenizer ---------------------------------------------------------------------------------


@pytest.fixture
def request_tiny(tmp_path: Path) -> SpeedRequest:
    build_tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    return SpeedRequest(str(tmp_path / "tiny"), batch_size=2, seconds=0)


def test_variants_do_the_same_and_differ_in_precision(request_tiny: SpeedRequest) -> None:
    plain = measure(request_tiny, "plain")
    same = measure(request_tiny, "float32", codes=plain.codes)
    fast = measure(request_tiny, "bfloat16", codes=plain.codes)
    assert plain.codes.shape == (2, 4, 4)
    assert agreement(plain, same) == 1
    assert 0.8 < agreement(plain, fast) <= 1
    assert np.abs(same.pixels - plain.pixels).max() < 1e-5
    assert 0 < np.abs(fast.pixels - plain.pixels).max() < 0.1
    assert plain.encode_per_second > 0
    assert plain.decode_per_second > 0


def test_presets_without_weights_get_the_same_random_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_tiny_tokenizer().config
    monkeypatch.setattr("eval.tokenizer_speed.PRESETS", {"base": config})
    first, second = (build_variant(SpeedRequest("base"), "plain") for _ in range(2))
    assert first.fingerprint == second.fingerprint
    assert not first.training
    with pytest.raises(ValueError, match="variant must be one of plain, float32, bfloat16, got"):
        build_variant(SpeedRequest("base"), "float8")


def test_the_command_compares_all_variants_with_the_plain_one(
    request_tiny: SpeedRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "measure_apart", measure)
    options = ["--model", request_tiny.model, "--batch-size", 2, "--seconds", 0, "--device", "cpu"]
    said = run(*options, command="tokenizer")
    for variant in VARIANTS:
        assert f"measuring {variant}" in said
    assert "float32: 100.00% of sub-codes as plain" in said
    assert "bfloat16: " in said
    assert "peak GiB" in said
    assert "2 at a time, cpu, 1 threads, nothing compiled" in " ".join(said.split())


@pytest.mark.slow
def test_a_compiled_tokenizer_gives_the_same_codes_and_pictures() -> None:
    tokenizer, compiled = build_tiny_tokenizer(), build_tiny_tokenizer()
    compile_tokenizer(compiled)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.inference_mode():
        codes = tokenizer.encode(pixels)
        assert torch.equal(compiled.encode(pixels), codes)
        assert torch.allclose(compiled.decode(codes), tokenizer.decode(codes), atol=1e-5)
    assert compiled.state_dict().keys() == tokenizer.state_dict().keys()
    assert compiled.fingerprint == tokenizer.fingerprint


@pytest.mark.slow
def test_a_variant_can_be_measured_in_a_process_of_its_own(request_tiny: SpeedRequest) -> None:
    apart = bench.measure_apart(request_tiny, "plain")
    assert np.array_equal(apart.codes, measure(request_tiny, "plain").codes)
