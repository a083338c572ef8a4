"""The two variants of train.bench compute the same loss, in a time that can be limited."""

import pytest
import torch

import train.bench
from mllm.model import UniTokMLLM
from mllm.packed_attention import PACKED_SDPA
from train.bench import VARIANTS, build_config, build_rows, measure

ROWS = (("drawing", 5, 2), ("caption", 2, 7), ("chat", 4, 9), ("text", 20, None))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train.bench, "ROWS", ROWS)
    monkeypatch.setattr(train.bench, "VOCAB_SIZE", 64)
    monkeypatch.setattr(train.bench, "CODEBOOK_SIZE", 32)
    monkeypatch.setitem(train.bench.SHAPES, "tiny", (64, 96, 1, 4, 1))


def test_ours_and_the_baseline_compute_the_same_loss() -> None:
    config = build_config("tiny")
    torch.manual_seed(0)
    model = UniTokMLLM(config)
    rows = build_rows(config)
    losses = {}
    for variant in VARIANTS:
        model.set_attn_implementation(PACKED_SDPA if variant == "ours" else "sdpa")
        losses[variant] = train.bench.LOSSES[variant](model, rows).item()
    # Measured 7e-8.
    assert losses["ours"] == pytest.approx(losses["baseline"], rel=1e-5)


@pytest.mark.parametrize(("seconds", "steps"), [(0.0, 1), (600.0, 3)])
def test_a_run_ends_after_its_time_but_not_before_one_step(seconds: float, steps: int) -> None:
    result = measure("tiny", "ours", steps=3, seconds=seconds, device="cpu", threads=1)
    assert result.num_steps == steps
    assert result.tokens_per_second > 0


def test_the_batch_is_said_with_its_padding() -> None:
    said = train.bench.describe_batch()
    assert "drawing 5+256+2, caption 2+256+7, chat 4+256+9, text 20" in said
    assert "817 useful tokens, 1076 when padded" in said
