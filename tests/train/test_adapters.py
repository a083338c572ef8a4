"""LoRA: only adapters learn, merged equals unmerged, resume is exact."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn

import train.mllm
from mllm.model import UniTokMLLM
from tests.mllm.conftest import build_batch
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.runs import assert_same_weights, read_losses, weights
from tests.train.test_mllm import build_config, run_until
from train.adapters import add_adapters, build_quantization, merge_saved_adapters
from train.mllm import run_stage
from train.parts import part_of
from train.stage_config import LoraSettings, StageConfig

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
    assert_same_weights(finished, tmp_path / "parts")


def test_a_stopped_and_resumed_adapter_beside_a_part_that_learns_in_full_does_too(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside = {**LORA, "trainable": ["llm", "projector"]}
    check_resume(
        build_config(materials, tmp_path / "whole", **beside),
        build_config(materials, tmp_path / "parts", **beside),
        monkeypatch,
    )


def check_resume(whole: StageConfig, parts: StageConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was stopped and resumed ends with the weights of an undisturbed one."""
    assert run_stage(whole)
    run_until(3, parts, monkeypatch)
    assert run_stage(parts, resume=True)
    assert_same_weights(Path(whole.output), Path(parts.output))


def test_named_visual_parts_learn_in_full_beside_the_adapters(tmp_path: Path) -> None:
    model = build_tiny_pipeline().model
    adapted = add_adapters(model, LoraSettings(rank=2), trainable=["llm", "projector"])
    learning = {name for name, value in adapted.named_parameters() if value.requires_grad}
    assert {part_of(name) for name in learning} == {"llm", "projector"}
    assert all("lora_" in name for name in learning if part_of(name) == "llm")
    with torch.no_grad():
        adapted.base_model.model.visual_embedder.mlp.modules_to_save["default"][1].bias.fill_(7)
    adapted.save_pretrained(str(tmp_path))
    merged = merge_saved_adapters(build_tiny_pipeline().model, tmp_path)
    assert merged.state_dict().keys() == build_tiny_pipeline().model.state_dict().keys()
    assert (merged.visual_embedder.mlp[1].bias == 7).all()


def watch_model(monkeypatch: pytest.MonkeyPatch, look: Callable[[nn.Module], None]) -> None:
    """Have `look` called with the model of each stage before it learns."""
    build = train.mllm.build_trainer

    def build_and_look(*arguments):
        trainer = build(*arguments)
        look(trainer.model)
        return trainer

    monkeypatch.setattr(train.mllm, "build_trainer", build_and_look)


HALF = {"lora": {**LORA["lora"], "frozen_dtype": "bfloat16"}, "trainable": ["llm"]}


def test_what_is_frozen_can_be_held_in_bfloat16_while_adapters_stay_float32(
    finished: Path, materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtypes = set()

    def look(model: nn.Module) -> None:
        dtypes.update((value.requires_grad, value.dtype) for value in model.parameters())

    watch_model(monkeypatch, look)
    assert run_stage(build_config(materials, tmp_path / "run", precision="bf16", **HALF))
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    # The random adapters and what dropout takes are the same; measured 2.1e-3.
    assert read_losses(tmp_path / "run") == pytest.approx(read_losses(finished), rel=0.02)
    before, got = load_file(materials["start"] / "model.safetensors"), weights(tmp_path / "run")
    changed = {part_of(name) for name in got if not torch.equal(got[name], before[name])}
    assert changed == {"llm"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp32"}, "set precision=bf16"),
        ({"precision": "bf16", "trainable": ["llm", "projector"]}, "leave lora.frozen_dtype out"),
    ],
)
def test_bfloat16_weights_beside_float32_ones_are_refused(
    changes: dict, message: str, materials: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        build_config(materials, tmp_path, **{**HALF, **changes})


QLORA = {"lora": {**LORA["lora"], "quantization": "nf4"}, "trainable": ["llm", "projector"]}


def qlora_stage(materials: dict[str, Path], run: Path) -> StageConfig:
    """Without inference, for which bitsandbytes needs layers of 64 on a CPU; nano's are wider."""
    config = build_config(materials, run, **QLORA)
    data = config.data.model_copy(update={"validation": ()})
    watch = config.watch.model_copy(update={"samples": None})
    return config.model_copy(update={"data": data, "watch": watch})


def test_qlora_learns_over_layers_of_4_bits_and_merges_into_whole_ones(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    seen = []

    def look(model: nn.Module) -> None:
        seen.extend(
            name.removeprefix("base_model.model.")
            for name, module in model.named_modules()
            if isinstance(module, bitsandbytes.nn.Linear4bit)
        )

    watch_model(monkeypatch, look)
    assert run_stage(qlora_stage(materials, tmp_path / "run"))
    assert len(seen) == 2 * 7
    assert all(name.startswith("decoder.layers.") for name in seen)
    assert all(math.isfinite(loss) for loss in read_losses(tmp_path / "run"))
    before = load_file(materials["start"] / "model.safetensors")
    got = weights(tmp_path / "run")
    assert {name: value.shape for name, value in got.items()} == {
        name: value.shape for name, value in before.items()
    }
    changed = {part_of(name) for name in got if not torch.equal(got[name], before[name])}
    assert changed == {"llm", "projector"}
    assert all(value.dtype == torch.float32 for value in got.values() if value.is_floating_point())


def test_a_stopped_and_resumed_qlora_ends_with_the_same_weights(
    materials: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bitsandbytes")
    whole, parts = (qlora_stage(materials, tmp_path / name) for name in ("whole", "parts"))
    check_resume(whole, parts, monkeypatch)


def test_qlora_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install bitsandbytes"):
        build_quantization(LoraSettings(quantization="nf4"), compute_dtype=torch.bfloat16)


def test_lora_without_the_language_model_is_refused() -> None:
    model = build_tiny_pipeline().model
    with pytest.raises(ValueError, match="add llm, or leave lora out"):
        add_adapters(model, LoraSettings(), trainable=["projector"])


def test_adapters_and_zero_3_are_refused(materials: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="set deepspeed=zero2"):
        build_config(materials, tmp_path, deepspeed="zero3", **LORA)
