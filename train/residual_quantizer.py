"""Residual quantization with one shared codebook: what multi-codebook quantization is compared to.

Each sub-code names the entry nearest to what the entries before it left over; their sum is the
quantized latent. The quantizer is that of the library vector-quantize-pytorch, whose codebook is a
running average of the latents that chose each entry.

Shapes: B batch, L visual tokens, C latent width, K sub-codes, V entries of the one codebook.
"""

import torch
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

from unitok.model import UniTok
from unitok.quantizer import CodeCounter, QuantizerOutput

# K sub-codes update the one codebook in every step; the library's default of 0.8 would forget a
# batch within that step.
AVERAGE_DECAY = 0.99


class ResidualQuantizer(CodeCounter):
    """Stands where a `MultiCodebookQuantizer` stands; for training and scoring in one process."""

    def __init__(
        self,
        num_codes: int,
        codebook_size: int,
        *,
        latent_dim: int,
        commitment_weight: float = 0.25,
    ) -> None:
        """`codebook_size` is that of the one codebook all sub-codes look up."""
        super().__init__(num_codes, codebook_size)
        self.residual = ResidualVQ(
            dim=latent_dim,
            num_quantizers=num_codes,
            codebook_size=codebook_size,
            shared_codebook=True,
            decay=AVERAGE_DECAY,
            commitment_weight=commitment_weight,
            kmeans_init=True,
        )

    def encode(self, latents_BLC: Tensor) -> Tensor:
        """Codes (B, L, K) int64, without learning from the latents."""
        was_training = self.residual.training
        self.residual.eval()
        with torch.autocast(latents_BLC.device.type, enabled=False):
            _, codes_BLK, _ = self.residual(latents_BLC.float())
        self.residual.train(was_training)
        return codes_BLK

    def lookup(self, codes_BLK: Tensor) -> Tensor:
        """Codes (B, L, K) -> quantized (B, L, C) float32: the sum of the entries."""
        return self.residual.get_output_from_indices(codes_BLK)

    def forward(self, latents_BLC: Tensor) -> QuantizerOutput:
        """Quantize latents (B, L, C) for training, with losses and usage."""
        with torch.autocast(latents_BLC.device.type, enabled=False):
            latents_BLC = latents_BLC.float()
            quantized_BLC, codes_BLK, losses_K = self.residual(latents_BLC)
        return QuantizerOutput(
            # The library passes the gradient on once for each sub-code, K times in all.
            quantized=latents_BLC + (quantized_BLC - latents_BLC).detach(),
            codes=codes_BLK,
            vq_loss=losses_K.mean(),
            usage=self._track_usage(codes_BLK),
        )


def use_residual_quantizer(model: UniTok) -> UniTok:
    """Put a residual quantizer with as many entries in all into a model, which it returns."""
    config = model.config
    quantizer = ResidualQuantizer(
        config.num_codebooks,
        config.num_codebooks * config.codebook_size,
        latent_dim=config.latent_dim,
        commitment_weight=config.commitment_weight,
    )
    model.register_module("quantizer", quantizer)
    return model
