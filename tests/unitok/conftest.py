"""A tokenizer small enough for a test, with random weights."""

import dataclasses

import pytest
import torch

from unitok.config import UniTokConfig
from unitok.model import UniTok

TINY = UniTokConfig(
    image_size=64,
    num_codebooks=4,
    codebook_size=32,
    codebook_dim=4,
    width=32,
    depth=2,
    num_heads=2,
    conv_widths=(8, 16),
    conv_depths=(1, 2),
    decoder_expand_ratio=2,
    feature_dim=16,
    text_width=16,
    text_heads=2,
    text_layers=2,
    text_vocab_size=600,
    text_context_length=16,
)


def build_tiny(**changes: object) -> UniTok:
    """A fresh model in eval mode, whose weights are wide enough for its outputs to differ."""
    model = UniTok(dataclasses.replace(TINY, **changes)).eval()
    with torch.no_grad():
        for param in model.parameters():
            if param.ndim > 1:
                param.normal_(std=param[0].numel() ** -0.5)
    return model


@pytest.fixture
def tiny_model() -> UniTok:
    torch.manual_seed(0)
    return build_tiny()


def random_pixels(batch_size: int = 2, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.rand(batch_size, 3, height, width) * 2 - 1
