"""Runs of the committed small tokenizer config, in this process and in others."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

import train.tokenizer
from tests.train.runs import ROOT
from train.config import load_config
from train.tokenizer import build_accelerator, open_data, open_preview
from train.tokenizer_config import TokenizerConfig
from train.tokenizer_data import TokenizerBatch
from train.tokenizer_start import initial_model
from train.tokenizer_trainer import TokenizerTrainer

SMOKE = ROOT / "train" / "configs" / "tokenizer_smoke.yaml"
# Every loss from the first step on.
SHORT = ("steps=6", "adversary.start_share=0", "watch.save_every=2", "watch.sample_every=3")


def smoke_config(output: Path, *changes: str) -> TokenizerConfig:
    return load_config(TokenizerConfig, SMOKE, [f"output={output}", *changes])


def forget_accelerate() -> None:
    """Its settings belong to the process: the next run would be refused others."""
    AcceleratorState._reset_state(reset_partial_state=True)


def run_here(config: TokenizerConfig, *, resume: bool = False) -> bool:
    """`train.tokenizer` in this process."""
    forget_accelerate()
    return train.tokenizer.train_tokenizer(config, resume=resume)


def build_trainer(config: TokenizerConfig) -> TokenizerTrainer:
    """A trainer at step 0, without a run folder."""
    forget_accelerate()
    torch.manual_seed(config.seed)
    accelerator: Accelerator = build_accelerator(config)
    return TokenizerTrainer(
        config,
        initial_model(config.model, config.init_from),
        accelerator=accelerator,
        data=open_data(config, accelerator),
        preview=open_preview(config, accelerator),
    )


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while a step is taken."""
    take_step = TokenizerTrainer._train_step

    def take(trainer: TokenizerTrainer, parts: list[TokenizerBatch]) -> dict[str, float]:
        if trainer.step + 1 == step:
            signal.raise_signal(signal.SIGTERM)
        return take_step(trainer, parts)

    monkeypatch.setattr(TokenizerTrainer, "_train_step", take)


def read_log(output: Path) -> list[dict[str, Any]]:
    """Without what depends on the machine."""
    measured = ("images_per_second", "peak_ram_gib", "eta_minutes")
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in line if key not in measured} for line in lines]


def assert_same_run(expected: Path, got: Path) -> None:
    """Log, weights and averaged weights are the same, bit for bit."""
    assert read_log(got) == read_log(expected)
    for folder in ("model", "model_ema"):
        first, second = (load_file(run / folder / "model.safetensors") for run in (expected, got))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
