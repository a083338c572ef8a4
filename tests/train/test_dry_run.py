"""--dry-run: what learns, memory and the first batch, without a run folder."""

from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import train.mllm
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.test_mllm import build_config
from train.config import save_config
from train.deepspeed_settings import read_zero
from train.memory_estimate import Machines, memory_line, plain_memory, zero_memory
from train.stage_config import StageConfig
from train.stage_trainer import choose_trainable

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
    assert plain_memory(config, choose_trainable(config, model)).device == needed


def test_a_stage_that_learns_in_full_needs_16_bytes_a_parameter(materials: dict[str, Path]) -> None:
    config = build_config(materials, Path("run"))
    model = choose_trainable(config, build_tiny_pipeline().model)
    total = sum(value.numel() for value in model.parameters())
    assert plain_memory(config, model).device == AROUND * total


MATRIX = 10**6  # parameters
ONE_OF_FOUR_LEARNS = [False, False, False, True]


def matrices(learns: list[bool]) -> nn.ModuleList:
    layers = [nn.Linear(1000, 1000, bias=False, device="meta") for _ in learns]
    for layer, each in zip(layers, learns, strict=True):
        layer.requires_grad_(each)
    return nn.ModuleList(layers)


@pytest.mark.parametrize(
    ("deepspeed", "nodes", "device", "machine"),
    [
        ("zero2", 1, 3 * 2 + 2 + 18 / 8, 0),
        ("zero2", 2, 3 * 2 + 2 + 18 / 16, 0),
        ("zero3", 1, 3 * 2 / 8 + 4 + 18 / 8, 0),
        ("zero3", 2, 3 * 2 / 16 + 4 + 18 / 16, 0),
        ("zero3_offload", 2, 4, (3 * 2 + 1.5 * 18) / 2),
    ],
)
def test_zero_asks_for_states_of_what_learns_and_for_two_bytes_of_what_is_frozen(
    deepspeed: str, nodes: int, device: float, machine: float, materials: dict[str, Path]
) -> None:
    """4 bytes of the largest layer are those that ZeRO-3 gathers."""
    config = build_config(materials, Path("run"), deepspeed=deepspeed, precision="bf16")
    needed = zero_memory(
        config,
        matrices(ONE_OF_FOUR_LEARNS),
        zero=read_zero(deepspeed),
        machines=Machines(8, nodes),
    )
    assert needed.device == device * MATRIX
    assert needed.machine == machine * MATRIX


def test_an_estimate_says_what_it_leaves_out_and_what_main_memory_is_needed(
    materials: dict[str, Path],
) -> None:
    def line(deepspeed: str, precision: str) -> str:
        config = build_config(materials, Path("run"), deepspeed=deepspeed, precision=precision)
        return memory_line(config, matrices([True]), machines=Machines(1))

    assert line("zero1", "bf16").endswith("; ZeRO-2's, a lower bound for ZeRO-1")
    assert line("zero2", "fp32").endswith("; bf16's, a lower bound for fp32")
    gib = 1.5 * 18 * MATRIX / 2**30
    assert line("zero3_offload", "bf16").endswith(
        f", and {gib:.2f} GiB of each machine's main memory"
    )
