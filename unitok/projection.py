"""Attention projection: the paper's replacement for a linear layer around the quantizer.

Paper: UniTok, arXiv 2502.20321, section 3.2. One class serves the tokenizer (full attention) and
the MLLM (causal, with a cache so that step-by-step equals all-at-once).

Shapes: B batch, L visual tokens, I input width, O output width, H heads, D head width.
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK_NORM_EPS = 1e-5
MLP_NORM_EPS = 1e-6


class GeGLU(nn.Module):
    """Normed gated MLP with tanh GELU: w2(gelu(w0 x) * w1 x), (..., width) -> (..., width).

    As timm's GeGluMlp, whose default is the exact GELU: the official model uses tanh, and the
    difference shows at 1e-3.
    """

    def __init__(self, in_features: int, hidden_features: int, **unused: object) -> None:
        """`unused` swallows what timm's `Block` passes to any MLP (activation, dropout, ...)."""
        super().__init__()
        self.norm = nn.LayerNorm(in_features, eps=MLP_NORM_EPS)
        self.w0 = nn.Linear(in_features, hidden_features)
        self.w1 = nn.Linear(in_features, hidden_features)
        self.w2 = nn.Linear(hidden_features, in_features)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.w2(F.gelu(self.w0(x), approximate="tanh") * self.w1(x))


class SeenTokens(Protocol):
    """Keys and values of the visual tokens before the new ones."""

    def append(
        self, keys_BHLD: Tensor, values_BHLD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Take in those of new tokens; give those of all, and which of them each new token sees:
        a mask for attention, None for all."""


class ProjectionCache:
    """Keys and values of the visual tokens seen so far, allocated once for `max_length` tokens.

    All pictures have seen equally many.
    """

    def __init__(self, keys_BHLD: Tensor, values_BHLD: Tensor) -> None:
        self.keys_BHLD = keys_BHLD
        self.values_BHLD = values_BHLD
        self.length = 0

    def append(
        self, keys_BHLD: Tensor, values_BHLD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store new keys and values, (B, H, new, D); return all of them, (B, H, length, D)."""
        end = self.length + keys_BHLD.shape[2]
        if end > self.keys_BHLD.shape[2]:
            raise ValueError(
                f"the projection cache holds {self.keys_BHLD.shape[2]} visual tokens, got {end}; "
                "allocate it for the whole picture"
            )
        self.keys_BHLD[:, :, self.length : end] = keys_BHLD
        self.values_BHLD[:, :, self.length : end] = values_BHLD
        self.length = end
        mask = causal_mask(keys_BHLD.shape[2], end, device=keys_BHLD.device)
        return self.keys_BHLD[:, :, :end], self.values_BHLD[:, :, :end], mask


def causal_mask(num_new: int, num_all: int, *, device: torch.device) -> Tensor | None:
    """True where a new token (row) may look at a token (column); None: everywhere."""
    if num_new == 1:
        return None
    mask = torch.ones(num_new, num_all, dtype=torch.bool, device=device)
    return mask.tril(diagonal=num_all - num_new)


class ProjectionAttention(nn.Module):
    """Self-attention from I to O: heads are averaged when I > O and concatenated otherwise."""

    def __init__(self, in_dim: int, out_dim: int, *, num_heads: int, causal: bool) -> None:
        super().__init__()
        inner_dim = max(in_dim, out_dim)
        self.average_heads = in_dim > out_dim
        if inner_dim % num_heads or (self.average_heads and inner_dim // num_heads != out_dim):
            raise ValueError(
                f"cannot project {in_dim} to {out_dim} with {num_heads} heads: expected heads as "
                f"wide as the output when narrowing, a divisor of {inner_dim} otherwise"
            )
        self.num_heads = num_heads
        self.head_dim = inner_dim // num_heads
        self.causal = causal
        self.qkv = nn.Linear(in_dim, 3 * inner_dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(inner_dim))
        self.v_bias = nn.Parameter(torch.zeros(inner_dim))
        self.proj = nn.Linear(out_dim, out_dim)

    def forward(self, x_BLI: Tensor, cache: SeenTokens | None = None) -> Tensor:
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x_BLI, self.qkv.weight, bias).unflatten(-1, (3, self.num_heads, -1))
        q_BHLD, k_BHLD, v_BHLD = qkv.permute(2, 0, 3, 1, 4)
        mask = None
        if cache is not None:
            k_BHLD, v_BHLD, mask = cache.append(k_BHLD, v_BHLD)
        elif self.causal:
            mask = causal_mask(x_BLI.shape[1], x_BLI.shape[1], device=x_BLI.device)
        heads_BHLD = F.scaled_dot_product_attention(q_BHLD, k_BHLD, v_BHLD, attn_mask=mask)
        if self.average_heads:
            return self.proj(heads_BHLD.mean(dim=1))
        return self.proj(heads_BHLD.transpose(1, 2).flatten(2))


class AttentionProjection(nn.Module):
    """Projects I-wide tokens to O-wide ones while they look at each other.

    y = Linear(norm3 x) + Attention(norm1 x); out = y + GeGLU(norm2 y).
    """

    def __init__(self, in_dim: int, out_dim: int, num_heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_dim, eps=BLOCK_NORM_EPS)
        self.attn = ProjectionAttention(in_dim, out_dim, num_heads=num_heads, causal=causal)
        self.norm3 = nn.LayerNorm(in_dim, eps=BLOCK_NORM_EPS)
        self.proj = nn.Linear(in_dim, out_dim)
        self.norm2 = nn.LayerNorm(out_dim, eps=BLOCK_NORM_EPS)
        self.mlp = GeGLU(out_dim, 2 * out_dim)

    def build_cache(self, batch_size: int, max_length: int) -> ProjectionCache:
        """An empty cache for `batch_size` pictures of up to `max_length` visual tokens."""
        shape = (batch_size, self.attn.num_heads, max_length, self.attn.head_dim)
        weight = self.proj.weight
        return ProjectionCache(weight.new_zeros(shape), weight.new_zeros(shape))

    def forward(self, x_BLI: Tensor, cache: SeenTokens | None = None) -> Tensor:
        """(B, L, I) -> (B, L, O). With a cache, x holds only the tokens that follow its content."""
        if cache is not None and not self.attn.causal:
            raise ValueError("only a causal projection can be cached: earlier tokens would change")
        y_BLO = self.proj(self.norm3(x_BLI)) + self.attn(self.norm1(x_BLI), cache)
        return y_BLO + self.mlp(self.norm2(y_BLO))
