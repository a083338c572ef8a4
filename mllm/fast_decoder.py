"""A LLaMA stack that reads new positions of many rows at once, over buffers that stay in place.

It has the modules and weights of a stock `LlamaModel` and computes the same, in fewer operations:
no mask is built and no cache grows, and rows of any length share one call because all positions
lie behind each other in one dimension.

Shapes: M new positions of all rows, R rows, H query heads, G key heads, T positions, E head width,
D stack width.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaModel

from mllm.row_buffers import LayerBuffer, RowBuffers


@dataclass(frozen=True)
class Rotation:
    """What turns queries and keys by their positions."""

    cos_M1E: Tensor
    sin_M1E: Tensor

    def __call__(self, x_MHE: Tensor) -> Tensor:
        left, right = x_MHE.chunk(2, dim=-1)
        return x_MHE * self.cos_M1E + torch.cat([-right, left], dim=-1) * self.sin_M1E


def build_rotation(stack: LlamaModel, positions_M: Tensor) -> Rotation:
    """The rotation of positions, in the type that the stack computes in."""
    cos_1ME, sin_1ME = stack.rotary_emb(stack.norm.weight, positions_M[None])
    return Rotation(cos_1ME[0, :, None], sin_1ME[0, :, None])


class Places(Protocol):
    """Where the new positions of a call stand and what each of them sees."""

    @property
    def rotation(self) -> Rotation: ...

    def attend(
        self, queries_MHE: Tensor, keys_MGE: Tensor, values_MGE: Tensor, *, kept: LayerBuffer
    ) -> Tensor:
        """Keep the new keys and values, look at all there are: (M, H, E)."""


def read_positions(
    stack: LlamaModel, embeds_MD: Tensor, *, places: Places, buffers: RowBuffers
) -> Tensor:
    """Normed hidden states (M, D) of new positions; `buffers` keep them for later ones."""
    hidden_MD = embeds_MD
    for layer, kept in zip(stack.layers, buffers.layers, strict=True):
        hidden_MD = _read_layer(layer, hidden_MD, places=places, kept=kept)
    normed_MD: Tensor = stack.norm(hidden_MD)
    return normed_MD


def _read_layer(layer: Any, x_MD: Tensor, *, places: Places, kept: LayerBuffer) -> Tensor:
    mixed_MD = _mix(layer.self_attn, layer.input_layernorm(x_MD), places=places, kept=kept)
    x_MD = x_MD + mixed_MD
    widened: Tensor = x_MD + layer.mlp(layer.post_attention_layernorm(x_MD))
    return widened


def _mix(module: Any, x_MD: Tensor, *, places: Places, kept: LayerBuffer) -> Tensor:
    heads = (-1, module.head_dim)
    queries_MHE = places.rotation(module.q_proj(x_MD).unflatten(-1, heads))
    keys_MGE = places.rotation(module.k_proj(x_MD).unflatten(-1, heads))
    values_MGE = module.v_proj(x_MD).unflatten(-1, heads)
    mixed_MHE = places.attend(queries_MHE, keys_MGE, values_MGE, kept=kept)
    mixed: Tensor = module.o_proj(mixed_MHE.flatten(1))
    return mixed


def look(
    queries_RHTE: Tensor,
    keys_RGTE: Tensor,
    values_RGTE: Tensor,
    *,
    mask: Tensor | None = None,
    is_causal: bool = False,
) -> Tensor:
    """Attention of rows, with fewer heads of keys than of queries or as many."""
    return F.scaled_dot_product_attention(
        queries_RHTE,
        keys_RGTE,
        values_RGTE,
        attn_mask=mask,
        is_causal=is_causal,
        enable_gqa=queries_RHTE.shape[1] != keys_RGTE.shape[1],
    )


class SamePosition:
    """One new position in each of the first rows, number `position` in all of them."""

    def __init__(self, position: int, rotation: Rotation) -> None:
        self.position = position
        self.rotation = rotation

    def attend(
        self, queries_MHE: Tensor, keys_MGE: Tensor, values_MGE: Tensor, *, kept: LayerBuffer
    ) -> Tensor:
        end, rows = self.position + 1, slice(len(keys_MGE))
        kept.keys_RGTE[rows, :, self.position] = keys_MGE
        kept.values_RGTE[rows, :, self.position] = values_MGE
        keys, values = kept.keys_RGTE[rows, :, :end], kept.values_RGTE[rows, :, :end]
        return look(queries_MHE.unsqueeze(2), keys, values).squeeze(2)


class LeadingRows:
    """One new position in each of rows 0, 1, ..., at a place of its own in each."""

    def __init__(self, positions_R: Tensor, *, num_kept: int, dtype: torch.dtype) -> None:
        """Each sees its row up to itself; `num_kept` positions of the buffers are looked at."""
        self.count = len(positions_R)
        self.num_kept = num_kept
        self.positions_R = positions_R
        device = positions_R.device
        self.rows_R = torch.arange(self.count, device=device)
        is_later_RT = torch.arange(num_kept, device=device) > positions_R[:, None]
        mask_RT = torch.zeros(is_later_RT.shape, dtype=dtype, device=device)
        self.mask_R11T = mask_RT.masked_fill(is_later_RT, float("-inf"))[:, None, None]

    def attend(
        self, queries_MHE: Tensor, keys_MGE: Tensor, values_MGE: Tensor, *, kept: LayerBuffer
    ) -> Tensor:
        kept.keys_RGTE[self.rows_R, :, self.positions_R] = keys_MGE
        kept.values_RGTE[self.rows_R, :, self.positions_R] = values_MGE
        keys = kept.keys_RGTE[: self.count, :, : self.num_kept]
        values = kept.values_RGTE[: self.count, :, : self.num_kept]
        return look(queries_MHE.unsqueeze(2), keys, values, mask=self.mask_R11T).squeeze(2)


@dataclass(frozen=True)
class Reading:
    """Positions `start` to `start + count` of one row."""

    row: int
    start: int
    count: int

    def attend(
        self, queries_MHE: Tensor, keys_MGE: Tensor, values_MGE: Tensor, *, kept: LayerBuffer
    ) -> Tensor:
        end, row = self.start + self.count, slice(self.row, self.row + 1)
        kept.keys_RGTE[row, :, self.start : end] = keys_MGE.transpose(0, 1)
        kept.values_RGTE[row, :, self.start : end] = values_MGE.transpose(0, 1)
        keys, values = kept.keys_RGTE[row, :, :end], kept.values_RGTE[row, :, :end]
        mask = None
        if self.start and self.count > 1:
            mask = torch.ones(self.count, end, dtype=torch.bool, device=keys.device)
            mask = mask.tril(diagonal=self.start)
        is_causal = self.start == 0 and self.count > 1
        mixed_1HTE = look(
            queries_MHE.transpose(0, 1)[None], keys, values, mask=mask, is_causal=is_causal
        )
        return mixed_1HTE[0].transpose(0, 1)


class Part(Protocol):
    """Places of `count` positions that are looked at together."""

    @property
    def count(self) -> int: ...

    def attend(
        self, queries_MHE: Tensor, keys_MGE: Tensor, values_MGE: Tensor, *, kept: LayerBuffer
    ) -> Tensor: ...


class RaggedPlaces:
    """New positions behind each other: first one of each of rows 0, 1, ..., then longer readings.

    Positions of the leading rows are looked at together, the rows of readings one by one.
    """

    def __init__(self, leading: LeadingRows, readings: list[Reading], rotation: Rotation) -> None:
        parts: list[Part] = [leading, *readings]
        self.parts = [part for part in parts if part.count]
        self.rotation = rotation

    def attend(
        self, queries_MHE: Tensor, keys_MGE: Tensor, values_MGE: Tensor, *, kept: LayerBuffer
    ) -> Tensor:
        counts = [part.count for part in self.parts]
        shares = zip(
            self.parts,
            queries_MHE.split(counts),
            keys_MGE.split(counts),
            values_MGE.split(counts),
            strict=True,
        )
        mixed = [part.attend(*states, kept=kept) for part, *states in shares]
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def read_one_each(
    stack: LlamaModel,
    embeds_RD: Tensor,
    positions_R: Tensor,
    *,
    num_kept: int,
    buffers: RowBuffers,
) -> Tensor:
    """Normed hidden states (R, D) of one new position in each of rows 0, 1, ..."""
    leading = LeadingRows(positions_R, num_kept=num_kept, dtype=embeds_RD.dtype)
    places = RaggedPlaces(leading, [], build_rotation(stack, positions_R))
    return read_positions(stack, embeds_RD, places=places, buffers=buffers)
