"""Attention inside each sample of a packed row, where no variable-length kernel is installed.

Importing this module registers `PACKED_SDPA` with transformers. The samples' lengths come as
`sample_lengths`, a keyword that the decoder hands on to every layer; without it the function is
plain `sdpa`. Nothing is computed between samples, so a pack costs what its samples cost alone.

Shapes: H heads, T packed length, D head width.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_SDPA = "packed_sdpa"


def packed_sdpa(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    sample_lengths: Sequence[int] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Queries (1, H, T, D), keys and values of a pack -> (1, T, H, D)."""
    if sample_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    lengths = list(sample_lengths)
    if query.shape[0] != 1 or sum(lengths) != query.shape[2]:
        raise ValueError(
            f"sample_lengths add up to {sum(lengths)} positions of one row, got queries of shape "
            f"{tuple(query.shape)}; pack all samples into a single row"
        )
    queries, keys, values = (states.split(lengths, dim=2) for states in (query, key, value))
    outputs = [
        F.scaled_dot_product_attention(
            *part,
            dropout_p=kwargs.get("dropout", 0.0),
            is_causal=True,
            scale=kwargs.get("scaling"),
            enable_gqa=key.shape[1] != query.shape[1],
        )
        for part in zip(queries, keys, values, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def packing_arguments(
    sample_lengths: Sequence[int], *, implementation: str | None, device: torch.device
) -> dict[str, Any]:
    """What the decoder needs to keep the samples of a pack apart with this kind of attention."""
    lengths = list(sample_lengths)
    positions = torch.cat([torch.arange(length, device=device) for length in lengths])
    arguments: dict[str, Any] = {"position_ids": positions.unsqueeze(0)}
    if implementation == PACKED_SDPA:
        # A mask that is four-dimensional already keeps transformers from building (T, T) entries.
        unused_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device)
        return {**arguments, "sample_lengths": lengths, "attention_mask": unused_mask}
    if implementation and implementation.startswith("flash"):
        bounds = torch.tensor([0, *lengths], device=device).cumsum(0, dtype=torch.int32)
        longest = max(lengths)
        return {
            **arguments,
            "cu_seq_lens_q": bounds,
            "cu_seq_lens_k": bounds,
            "max_length_q": longest,
            "max_length_k": longest,
        }
    return arguments  # transformers masks by the positions, which start again with each sample


AttentionInterface.register(PACKED_SDPA, packed_sdpa)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)
