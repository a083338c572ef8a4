"""The settings that ship: every file is valid, and a stage begins where the one before ends."""

from pathlib import Path

import pytest

import train.mllm
from train.config import load_config
from train.deepspeed_settings import find_deepspeed
from train.extraction import ExtractConfig
from train.nano import NanoConfig
from train.stage_config import StageConfig
from unitok.files import read_json

CONFIGS = Path(train.mllm.__file__).parent / "configs"
DEEPSPEED = sorted(path.stem for path in (CONFIGS / "deepspeed").glob("*.json"))
OTHERS = {"nano": NanoConfig, "nano_codes": ExtractConfig, "official_codes": ExtractConfig}
STAGES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem not in OTHERS)


def load_stage(name: str) -> StageConfig:
    return load_config(StageConfig, CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("name", STAGES)
def test_the_settings_of_a_stage_are_valid(name: str) -> None:
    config = load_stage(name)
    assert config.output == f"runs/{name}"
    assert config.deepspeed is None or config.device == "auto"


@pytest.mark.parametrize("name", DEEPSPEED)
def test_deepspeed_adds_gradients_up_in_float32_whatever_the_precision(name: str) -> None:
    assert read_json(find_deepspeed(name))["data_types"] == {"grad_accum_dtype": "fp32"}


@pytest.mark.parametrize("name", list(OTHERS))
def test_other_settings_are_valid(name: str) -> None:
    load_config(OTHERS[name], CONFIGS / f"{name}.yaml")


@pytest.mark.parametrize("size", ["nano", "official"])
def test_each_stage_begins_where_the_one_before_ends(size: str) -> None:
    align, pretrain, finetune = (
        load_stage(f"{size}_{stage}") for stage in ("align", "pretrain", "finetune")
    )
    assert pretrain.init_from.mllm == f"{align.output}/model"
    assert finetune.init_from.mllm == f"{pretrain.output}/model"
    assert align.trainable == ("projector",)
    assert pretrain.data.rows.unconditional_share == 0.1


@pytest.mark.parametrize("size", ["nano", "official"])
def test_the_sources_of_each_stage_are_among_those_that_are_extracted(size: str) -> None:
    codes = load_config(ExtractConfig, CONFIGS / f"{size}_codes.yaml")
    extracted = {source.name for source in codes.sources}
    used = set()
    for stage in ("align", "pretrain", "finetune"):
        for source in load_stage(f"{size}_{stage}").data.sources:
            assert source.codes == str(codes.output)
            used.add(source.source)
    assert used == extracted


@pytest.mark.parametrize("size", ["nano", "official"])
def test_adapters_come_with_and_without_quantization(size: str) -> None:
    lora, qlora = load_stage(f"{size}_lora").lora, load_stage(f"{size}_qlora").lora
    assert lora is not None
    assert qlora is not None
    assert lora.quantization is None
    assert qlora == lora.model_copy(update={"quantization": "nf4"})
