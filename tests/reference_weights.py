"""Weights made from their names alone, so that reference numbers need no checkpoint.

`fill(layout)` gives the state dict that the numbers in tests/goldens were computed with.
"""

import json
import zlib
from pathlib import Path

import torch
from torch import Tensor

GOLDENS = Path(__file__).parent / "goldens"
Layout = dict[str, tuple[list[int], str]]  # key -> (shape, dtype name)


def load_layout(name: str) -> Layout:
    """The layout stored as `name` below tests/goldens."""
    return json.loads((GOLDENS / name).read_text())


def fill(layout: Layout) -> dict[str, Tensor]:
    """A tensor for every key; each depends on its own name and shape only."""
    return {
        key: _make_tensor(key, torch.Size(shape)).to(getattr(torch, dtype))
        for key, (shape, dtype) in layout.items()
    }


def _make_tensor(key: str, shape: torch.Size) -> Tensor:
    if "vocab_usage" in key or "zero_k_bias" in key:
        return torch.zeros(shape)
    seed = zlib.crc32(key.encode())
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if len(shape) > 1:
        fan_in = shape[1:].numel()
        return noise * fan_in**-0.5
    is_scale = key == "logit_scale" or key.endswith("weight")
    return float(is_scale) + 0.02 * noise
