"""--dry-run: what learns, memory and the first batch, without a run folder."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import train.mllm
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.test_mllm import build_config
from train.config import save_config
from train.dry_run import Machines, plain_memory, zero_memory
from train.mllm import choose_trainable
from train.stage_config import StageConfig

LORA = {"lora": {"rank": 4, "alpha": 8}, "trainable": ["llm"], "precision": "bf16"}
AROUND = 4 + 4 + 8  # float32 weight, gradient and two moments of AdamW


def dry_run(config: StageConfig, path: Path, *options: str) -> list[str]:
    save_config(config, path)
    result = CliRunner().invoke(train.mllm.app, [str(path), "--dry-run", *options])
    assert result.exit_code == 0, result.output
    return result.output.splitlines()


def test_a_dry_run_says_what_learns_and_shows_the_first_batch(
    materials: dict[str, Path], tmp_path: Path
) -> None:
    config = build_config(materials, tmp_path / "run", trainable=["projector"])
    lines = dry_run(config, tmp_path / "stage.yaml", "--processes", "2", "--nodes", "3")
    assert "trainable:" in lines
    learns = {line.split()[0]: line.split()[1] for line in lines if line.endswith("learn")}
    assert {part for part, count in learns.items() if count != "0"} == {"projector", "all"}
    assert learns["projector"] == learns["all"]
    assert "24 samples, 24 a step: 1 steps" in lines  # 2 in a pack, 2 packs, 6 processes
    assert any(line.startswith("first pack: codes ") for line in lines)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "adapted_bytes", "other_bytes"),
    [
        ({}, 4, 4),
        ({"frozen_dtype": "bfloat16"}, 2, 2),
        ({"frozen_dtype": "bfloat16", "quantization": "nf4"}, 0.5, 2),
    ],
)
def test_memory_counts_frozen_weights_by_how_they_are_held(
    changes: dict, adapted_bytes: float, other_bytes: float, materials: dict[str, Path]
) -> None:
    settings = {**LORA, "lora": {**LORA["lora"], **changes}}
    config = build_config(materials, Path("run"), **settings)
    model = build_tiny_pipeline().model
    layers = [m for m in model.decoder.layers.modules() if isinstance(m, torch.nn.Linear)]
    num_adapted = sum(layer.weight.numel() for layer in layers)
    num_others = sum(value.numel() for value in model.parameters()) - num_adapted
    learning = sum(4 * (layer.in_features + layer.out_features) for layer in layers)
    needed = num_adapted * adapted_bytes + num_others * other_bytes + learning * AROUND
    assert plain_memory(config, choose_trainable(config, model)) == needed


def test_a_stage_that_learns_in_full_needs_16_bytes_a_parameter(materials: dict[str, Path]) -> None:
    config = build_config(materials, Path("run"))
    model = choose_trainable(config, build_tiny_pipeline().model)
    total = sum(value.numel() for value in model.parameters())
    assert plain_memory(config, model) == AROUND * total


def test_zero_3_spreads_over_all_machines_what_zero_2_keeps_whole() -> None:
    model = torch.nn.Linear(1000, 1000, bias=False)
    gib = {
        (name, nodes): zero_memory(name, 10**9, model=model, machines=Machines(8, nodes))
        for name in ("zero2", "zero3")
        for nodes in (1, 8)
    }
    assert gib["zero2", 1] == pytest.approx(10**9 * (2 + 18 / 8) / 2**30)
    assert gib["zero2", 8] == pytest.approx(10**9 * (2 + 18 / 64) / 2**30)
    assert gib["zero3", 8] == pytest.approx(gib["zero3", 1] / 8, rel=0.05)
