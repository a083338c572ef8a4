"""Codes of a picture -> embeddings that the decoder reads in place of text embeddings.

Paper: UniTok, arXiv 2502.20321, section 3.3.
Differs from official UniTok: the projection has a cache, so that a picture drawn token by token
is embedded as in training; the official sampler projects each new token alone.

Shapes: P pictures, L visual tokens, K codebooks, V codebook size, D decoder width.
"""

import torch
from torch import Tensor, nn

from unitok.projection import AttentionProjection, ProjectionCache, SeenTokens
from unitok.quantizer import MultiCodebookQuantizer

NORM_EPS = 1e-6


class VisualEmbedder(nn.Module):
    """Frozen codebooks -> causal attention projection -> MLP."""

    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        *,
        codebook_dim: int,
        projection_dim: int,
        projection_heads: int,
        hidden_size: int,
    ) -> None:
        super().__init__()
        self.quantizer = MultiCodebookQuantizer(
            num_codebooks, codebook_size, codebook_dim=codebook_dim, frozen=True
        )
        self.projection = AttentionProjection(
            num_codebooks * codebook_dim, projection_dim, projection_heads, causal=True
        )
        self.mlp = nn.Sequential(
            nn.LayerNorm(projection_dim, eps=NORM_EPS),
            nn.Linear(projection_dim, hidden_size),
            nn.GELU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def forward(self, codes_PLK: Tensor, cache: SeenTokens | None = None) -> Tensor:
        """Codes (P, L, K) -> (P, L, D). With a cache, L are only the tokens after its content."""
        # The lookup gives float32 whatever the model's type is.
        quantized = self.quantizer.lookup(codes_PLK).to(self.projection.proj.weight.dtype)
        return self.mlp(self.projection(quantized, cache))

    def build_cache(self, num_pictures: int, num_tokens: int) -> ProjectionCache:
        """An empty cache for pictures of up to `num_tokens` visual tokens."""
        return self.projection.build_cache(num_pictures, num_tokens)

    def train(self, mode: bool = True) -> "VisualEmbedder":
        super().train(mode)
        self.quantizer.eval()
        return self

    def load_codebooks(self, codebooks_KVD: Tensor) -> None:
        """Take over a tokenizer's codebooks (K, V, codebook_dim)."""
        own = self.quantizer.codebooks_KVD
        if codebooks_KVD.shape != own.shape:
            raise ValueError(
                f"the tokenizer's codebooks are {tuple(codebooks_KVD.shape)}, the model's are "
                f"{tuple(own.shape)} (num_codebooks, codebook_size, codebook_dim); "
                "build the model's config from the tokenizer's"
            )
        with torch.no_grad():
            own.copy_(codebooks_KVD)
