"""The settings that ship: every file is valid, and a stage begins where the one before ends."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer
import yaml

import train.mllm
import train.tokenizer
from train.config import load_config
from train.deepspeed_settings import find_deepspeed
from train.extraction import ExtractConfig
from train.nano import NanoConfig
from train.optimizers import GeneratorOptimConfig
from train.stage_config import StageConfig
from train.tokenizer_config import (
    AdversaryConfig,
    BatchConfig,
    LossWeights,
    TokenizerConfig,
)
from train.tokenizer_start import StartConfig
from unitok.config import PRESETS
from unitok.files import read_json

CONFIGS = Path(train.mllm.__file__).parent / "configs"
DEEPSPEED = sorted(path.stem for path in (CONFIGS / "deepspeed").glob("*.json"))
TOKENIZERS = sorted(path.stem for path in CONFIGS.glob("tokenizer_*.yaml"))
OTHERS = {
    "nano": NanoConfig,
    "nano_codes": ExtractConfig,
    "official_codes": ExtractConfig,
    **dict.fromkeys(TOKENIZERS, TokenizerConfig),
}
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


@pytest.mark.parametrize(
    ("stage", "lr", "num_samples", "weights", "samples_per_step", "num_gpus"),
    [
        ("align", 1e-3, None, {"captions": None}, 256, 8),
        ("pretrain", 5e-5, 70_000_000, {"texts": 1, "drawings": 3, "captions": 3}, 1024, 64),
        ("finetune", 2e-5, 3_000_000, {"instructions": 1, "drawings": 1}, 1024, 64),
    ],
)
def test_the_official_stages_are_the_published_ones(
    stage: str,
    lr: float,
    num_samples: int | None,
    weights: dict[str, float | None],
    samples_per_step: int,
    num_gpus: int,
) -> None:
    config = load_stage(f"official_{stage}")
    assert config.data.num_samples == num_samples  # None: an epoch of all captions
    assert {source.name: source.weight for source in config.data.sources} == weights
    batch = config.batch
    assert batch.samples_per_pack * batch.accumulation * num_gpus == samples_per_step
    optim = config.optim
    assert (optim.optimizer, optim.lr, optim.lr_scales) == ("adamw", lr, {})
    assert (optim.betas, optim.weight_decay) == ((0.9, 0.95), 0)
    assert (optim.warmup_share, optim.final_lr_share) == (0.03, 0)
    assert optim.text_weight == 1
    rows = config.data.rows
    assert (rows.max_length, rows.unconditional_share) == (2048, 0.1)
    assert (config.precision, config.deepspeed) == ("bf16", "zero3")


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


def load_tokenizer_run(name: str) -> TokenizerConfig:
    return load_config(TokenizerConfig, CONFIGS / f"tokenizer_{name}.yaml")


@pytest.mark.parametrize("name", ["nano", "base_256", "large_256", "large_256_clip_init"])
def test_tokenizer_runs_have_the_sizes_of_the_presets(name: str) -> None:
    config = load_tokenizer_run(name)
    preset = PRESETS[name.split("_")[0]]
    assert config.model == replace(preset, drop_path=config.model.drop_path)
    assert config.output == f"runs/tokenizer_{name}"


def test_the_documented_tokenizer_runs_have_settings_that_there_are() -> None:
    text = (CONFIGS.parents[1] / "docs" / "tokenizer_training.md").read_text(encoding="utf-8")
    commands = re.findall(r"-m train\.tokenizer (\S+\.yaml)(.*)", text)
    assert len(commands) == 5
    for config, rest in commands:
        options = [each for each in shlex.split(rest) if not each.startswith("--")]
        load_config(TokenizerConfig, CONFIGS.parents[1] / config, [e for e in options if "=" in e])
        arguments = [config, *shlex.split(rest)]
        typer.main.get_command(train.tokenizer.app).make_context("train", arguments)
    starts = re.findall(r"`init_from: (\{.*?\})`", text)
    assert len(starts) == 2
    for start in starts:
        StartConfig.model_validate(yaml.safe_load(start))


def test_the_large_run_is_the_published_one() -> None:
    config = load_tokenizer_run("large_256")
    assert config.batch.size * config.steps == 1_280_000_000
    assert config.weights == LossWeights()
    assert config.optim == GeneratorOptimConfig()
    assert config.adversary == AdversaryConfig()
    assert config.model.drop_path == 0.1
    assert config.ema_decay is None
    clip = load_tokenizer_run("large_256_clip_init")
    changed = {"init_from": clip.init_from, "output": clip.output}
    assert config.model_copy(update=changed) == clip
    assert clip.init_from.clip == "ViTamin-L"


def test_published_numbers_are_the_defaults() -> None:
    weights, optim, adversary = LossWeights(), GeneratorOptimConfig(), AdversaryConfig()
    assert (weights.l1, weights.l2, weights.lpips, weights.gan) == (0.2, 1.0, 1.0, 0.4)
    assert (weights.vq, weights.clip, weights.edge, weights.entropy) == (1.0, 1.0, 0, 0)
    assert (optim.lr, optim.betas, optim.eps) == (5e-4, (0.9, 0.95), 1e-6)
    assert (optim.weight_decay, optim.clip_grad) == (0.02, 10.0)
    assert (optim.warmup_share, optim.final_lr_share) == (0.01, 0.1)
    assert (adversary.start_share, adversary.consistency) == (0.375, 4.0)
    assert (adversary.optim.lr, adversary.optim.betas) == (2e-5, (0.5, 0.9))
    assert (adversary.optim.weight_decay, adversary.optim.warmup_share) == (0.2, 0.03)


def test_a_batch_of_which_no_nth_picture_is_decoded_and_a_lone_adversary_are_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of batch\.vae_batch.* got 8 and 3"):
        BatchConfig(size=8, vae_batch=3)
    with pytest.raises(ValueError, match=r"weights\.gan is relative to the reconstruction losses"):
        LossWeights(l1=0, l2=0, lpips=0)


def test_zero1_is_refused_with_muon() -> None:
    changes = ["zero1=true", "optim.optimizer=muon"]
    with pytest.raises(ValueError, match="zero1 shares out the state of AdamW"):
        load_config(TokenizerConfig, CONFIGS / "tokenizer_nano.yaml", changes)
