"""The reference model with its numbers, and a tiny model with random weights."""

import json
from functools import cache

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import LlamaConfig

from mllm.config import UniTokMLLMConfig
from mllm.convert import convert_config, convert_state_dict
from mllm.loss import IGNORE_ID
from mllm.model import UniTokMLLM
from tests.reference_weights import GOLDENS, fill, load_layout

REFERENCE = GOLDENS / "mllm" / "mllm_dev.safetensors"
TINY_GRID = (2, 3)


@cache
def load_reference_settings() -> dict:
    """The reference model's LLaMA sizes under the names of a released config.json."""
    with safe_open(REFERENCE, framework="pt") as file:
        sizes = json.loads(file.metadata()["config"])
    return {
        "hidden_size": sizes["hidden"],
        "intermediate_size": sizes["inter"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv"],
        "vocab_size": sizes["vocab"],
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "pad_token_id": 0,
    }


@pytest.fixture(scope="session")
def reference() -> dict[str, Tensor]:
    with safe_open(REFERENCE, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping


@pytest.fixture(scope="session")
def official_weights() -> dict[str, Tensor]:
    return fill(load_layout("mllm/mllm_dev_layout.json"))


@pytest.fixture(scope="session")
def reference_model(official_weights) -> UniTokMLLM:
    layout = {key: tuple(value.shape) for key, value in official_weights.items()}
    config = convert_config(load_reference_settings(), layout, grid=(4, 4))
    model = UniTokMLLM(config)
    model.load_state_dict(convert_state_dict(official_weights), strict=True)
    return model.eval()


def build_tiny_config(**changes: object) -> UniTokMLLMConfig:
    text_config = LlamaConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
        # Wide enough for random weights to prefer one token clearly.
        initializer_range=0.3,
        pad_token_id=0,
    )
    values = {
        "text_config": text_config,
        "num_codebooks": 4,
        "codebook_size": 32,
        "codebook_dim": 4,
        "grid": TINY_GRID,
        "projection_dim": 32,
        "projection_heads": 4,
        "head_layers": 2,
    }
    return UniTokMLLMConfig(**(values | changes))


@pytest.fixture
def tiny_model() -> UniTokMLLM:
    torch.manual_seed(0)
    return UniTokMLLM(build_tiny_config()).eval()


def build_batch(config: UniTokMLLMConfig) -> dict[str, Tensor]:
    """A drawn picture in one row, a picture that is read in the other, padded on the right."""
    visual = [config.image_token_id] * config.num_visual_tokens
    drawn = [1, 7, 8, 3, *visual, 4, 2]
    read = [1, *visual, 9, 10, 2]
    num_missing = len(drawn) - len(read)
    ignored = [IGNORE_ID] * (1 + len(visual))
    return {
        "input_ids": torch.tensor([drawn, read + [0] * num_missing]),
        "attention_mask": torch.tensor([[1] * len(drawn), [1] * len(read) + [0] * num_missing]),
        "codes": torch.randint(0, config.codebook_size, (2, len(visual), config.num_codebooks)),
        "labels": torch.tensor(
            [[IGNORE_ID] * 3 + drawn[3:], ignored + read[-3:] + [IGNORE_ID] * num_missing]
        ),
    }
