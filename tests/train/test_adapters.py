"""LoRA: only adapters learn, merged equals unmerged, resume is exact."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from mllm.model import UniTokMLLM
from tests.mllm.conftest import build_batch
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.test_mllm import build_config, run_until, weights
from train.adapters import add_adapters, merge_adapters
from train.mllm import run_stage
from train.parts import part_of
from train.stage_config import LoraSettings

LORA = {"lora": {"rank": 4, "alpha": 8, "dropout": 0.1}, "trainable": ["llm"]}


@pytest.fixture(scope="module")
def finished(materials: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("lora") / "run"
    assert run_stage(build_config(materials, run, **LORA))
    return run


def test_adapters_change_the_language_model_alone(
    finished: Path, materials: dict[str, Path]
) -> None:
    before = load_file(materials["start"] / "model.safetensors")
    changed = {
        name for name, value in weights(finished).items() if not torch.equal(value, before[name])
    }
    assert {part_of(name) for name in changed} == {"llm"}
    assert len(changed) == 2 * 7  # linear layers of two decoder layers


def test_the_merged_model_equals_the_one_with_its_adapter(
    finished: Path, materials: dict[str, Path]
) -> None:
    merged = UniTokMLLM.from_pretrained(finished / "model")
    start = UniTokMLLM.from_pretrained(materials["start"])
    adapted = PeftModel.from_pretrained(start, finished / "adapter").eval()
    batch = build_batch(merged.config)
    del batch["labels"]
    # Measured 9.1e-6.
    torch.testing.assert_close(
        merged(**batch).logits, adapted(**batch).logits, atol=1e-4, rtol=1e-4
    )


def test_a_stopped_and_resumed_adapter_ends_with_the_same_weights(
    finished: Path, materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = build_config(materials, tmp_path / "parts", **LORA)
    run_until(3, config, monkeypatch)
    assert run_stage(config, resume=True)
    expected, got = weights(finished), weights(tmp_path / "parts")
    assert all(torch.equal(expected[key], got[key]) for key in expected)


def test_named_visual_parts_learn_in_full_beside_the_adapters() -> None:
    model = build_tiny_pipeline().model
    adapted = add_adapters(model, LoraSettings(rank=2), trainable=["llm", "projector"])
    learning = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert {part_of(name) for name in learning} == {"llm", "projector"}
    assert all("lora_" in name for name in learning if part_of(name) == "llm")
    merged = merge_adapters(adapted)
    assert merged.state_dict().keys() == build_tiny_pipeline().model.state_dict().keys()


def test_lora_without_the_language_model_is_refused() -> None:
    model = build_tiny_pipeline().model
    with pytest.raises(ValueError, match="add llm, or leave lora out"):
        add_adapters(model, LoraSettings(), trainable=["projector"])


def test_adapters_and_zero_3_are_refused(materials: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set deepspeed=zero2"):
        build_config(materials, tmp_path, deepspeed="zero3", **LORA)
