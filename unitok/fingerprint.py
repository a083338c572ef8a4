"""A short name for a set of weights, so that codes and models can say which one they belong to."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

NUM_SAMPLES = 4096  # per tensor: a 7B model takes a second instead of half a minute
NUM_HEX = 16


def fingerprint_in_memory(model: nn.Module, dtype: torch.dtype, *, on_disk: str | None) -> str:
    """Name of a model's weights; in float16 it keeps the one `on_disk`, which rounding changes."""
    if dtype == torch.float16 and on_disk:
        return on_disk
    return fingerprint(model.state_dict())


def fingerprint(state_dict: Mapping[str, Tensor]) -> str:
    """16 hex digits over names, shapes and up to 4096 evenly spaced values of every tensor.

    Values are rounded to bfloat16 first, so that the float32 and the bfloat16 form of the same
    weights share their name. It tells trainings apart; it is no protection against forgery.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        flat = tensor.flatten()
        step = max(1, -(-flat.numel() // NUM_SAMPLES))  # rounded up: it reaches the end
        sample = flat[::step].to(torch.bfloat16).contiguous().cpu()
        digest.update(sample.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:NUM_HEX]
