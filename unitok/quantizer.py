"""Multi-codebook quantization: K independent cosine codebooks over equal slices of the latent.

Paper: UniTok, arXiv 2502.20321, section 3.2.

Shapes: B batch, L visual tokens (h*w), C latent width, K codebooks, V codebook size, D = C // K.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

INIT_SCALE = 36  # codebooks start uniform in +-D^-0.5 / 36, as the official ones
USED_SHARE = 0.01  # an entry counts as used above this share of the uniform probability
FAST_UPDATES = 100  # the running usage forgets faster during so many first updates


@dataclass
class QuantizerOutput:
    quantized: Tensor  # (B, L, C), unit vectors per slice, straight-through gradient
    codes: Tensor  # (B, L, K) int64
    vq_loss: Tensor  # scalar: codebook + commitment loss, mean over codebooks
    usage: Tensor  # scalar: percent of the entries that this batch uses, mean over codebooks


class CodeCounter(nn.Module):
    """What every quantizer has: K sub-codes of V values each, checked and counted."""

    def __init__(self, num_codebooks: int, codebook_size: int) -> None:
        super().__init__()
        self.num_codebooks = num_codebooks
        self.codebook_size = codebook_size
        self.register_buffer("vocab_usage_KV", torch.zeros(num_codebooks, codebook_size))
        self.register_buffer("num_updates", torch.zeros((), dtype=torch.int64), persistent=False)
        self.vocab_usage_KV: Tensor
        self.num_updates: Tensor

    def check_codes(self, codes_BLK: Tensor) -> None:
        """Raise ValueError unless codes are (B, L, K) and every sub-code lies in 0..V-1."""
        if codes_BLK.is_floating_point() or codes_BLK.dtype == torch.bool:
            raise ValueError(
                f"codes must be integers, got {codes_BLK.dtype}; convert them to int64"
            )
        if codes_BLK.ndim != 3 or codes_BLK.shape[-1] != self.num_codebooks:
            raise ValueError(
                f"codes must be (B, L, {self.num_codebooks}), got {tuple(codes_BLK.shape)}; "
                "official UniTok files are (B, K, L): transpose(1, 2) first"
            )
        if not codes_BLK.numel():
            raise ValueError(f"codes hold no visual token: their shape is {tuple(codes_BLK.shape)}")
        low, high = int(codes_BLK.min()), int(codes_BLK.max())
        if low < 0 or high >= self.codebook_size:
            raise ValueError(
                f"sub-codes must lie in 0..{self.codebook_size - 1}, got {low}..{high}; "
                "these codes belong to another tokenizer"
            )

    @torch.no_grad()
    def _track_usage(self, codes_BLK: Tensor) -> Tensor:
        """Percent of entries in use in this batch (over all processes); keeps a running average."""
        counts_KV = self._count(codes_BLK)
        if self.training and dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts_KV)
        probs_KV = counts_KV / counts_KV.sum(dim=-1, keepdim=True)
        if self.training:
            momentum = 0.9 if self.num_updates < FAST_UPDATES else 0.99
            if self.num_updates == 0:
                momentum = 0.0
            self.vocab_usage_KV.lerp_(probs_KV.to(self.vocab_usage_KV.dtype), 1 - momentum)
            self.num_updates += 1
        used = probs_KV > USED_SHARE / self.codebook_size
        return 100 * used.float().mean()

    def _count(self, codes_BLK: Tensor) -> Tensor:
        """How often each entry occurs, (K, V) float."""
        flat_KN = codes_BLK.flatten(0, 1).T
        # float32 whatever the model's type is: bfloat16 cannot count beyond 256.
        counts_KV = torch.zeros_like(self.vocab_usage_KV, dtype=torch.float32)
        return counts_KV.scatter_add_(1, flat_KN, torch.ones_like(flat_KN, dtype=torch.float32))


class MultiCodebookQuantizer(CodeCounter):
    """K codebooks of V entries, each D wide; nearest entry by cosine similarity."""

    def __init__(
        self,
        num_codebooks: int,
        codebook_size: int,
        *,
        codebook_dim: int,
        commitment_weight: float = 0.25,
        frozen: bool = False,
    ) -> None:
        """`frozen` codebooks are a buffer: a loaded parameter would ask for gradients again."""
        super().__init__(num_codebooks, codebook_size)
        self.commitment_weight = commitment_weight
        bound = codebook_dim**-0.5 / INIT_SCALE
        shape = (num_codebooks, codebook_size, codebook_dim)
        codebooks_KVD = torch.empty(shape).uniform_(-bound, bound)
        if frozen:
            self.register_buffer("codebooks_KVD", codebooks_KVD)
        else:
            self.codebooks_KVD = nn.Parameter(codebooks_KVD)

    def encode(self, latents_BLC: Tensor) -> Tensor:
        """Nearest entry of every codebook, as codes (B, L, K) int64."""
        return self._nearest(self._split(latents_BLC), self._unit_codebooks())

    def lookup(self, codes_BLK: Tensor) -> Tensor:
        """Codes (B, L, K) -> quantized (B, L, C) float32: the l2-normalised entries side by side.

        Does not look at the values, which on a GPU would wait for them: `check_codes` does.
        """
        return self._gather(codes_BLK, self._unit_codebooks()).flatten(-2)

    def forward(self, latents_BLC: Tensor) -> QuantizerOutput:
        """Quantize latents (B, L, C) for training, with losses and usage."""
        z_BLKD = self._split(latents_BLC)
        unit_books_KVD = self._unit_codebooks()
        codes_BLK = self._nearest(z_BLKD, unit_books_KVD)
        q_BLKD = self._gather(codes_BLK, unit_books_KVD)
        codebook_loss = F.mse_loss(q_BLKD, z_BLKD.detach())
        commitment_loss = F.mse_loss(z_BLKD, q_BLKD.detach())
        return QuantizerOutput(
            quantized=(z_BLKD + (q_BLKD - z_BLKD).detach()).flatten(-2),
            codes=codes_BLK,
            vq_loss=codebook_loss + self.commitment_weight * commitment_loss,
            usage=self._track_usage(codes_BLK),
        )

    def similarities(self, latents_BLC: Tensor) -> Tensor:
        """Cosines (B * L, K, V) of latents (B, L, C) with all entries: a large tensor."""
        z_NKD = self._split(latents_BLC).flatten(0, 1)
        with torch.autocast(z_NKD.device.type, enabled=False):
            return torch.einsum("nkd,kvd->nkv", z_NKD, self._unit_codebooks())

    def _unit_codebooks(self) -> Tensor:
        return F.normalize(self.codebooks_KVD.float(), dim=-1)

    def _split(self, latents_BLC: Tensor) -> Tensor:
        return F.normalize(latents_BLC.float().unflatten(-1, (self.num_codebooks, -1)), dim=-1)

    def _nearest(self, z_BLKD: Tensor, unit_books_KVD: Tensor) -> Tensor:
        # One codebook at a time: all at once would hold B*L*K*V similarities. In float32 also under
        # autocast, whose bfloat16 cannot tell close entries apart.
        with torch.no_grad(), torch.autocast(z_BLKD.device.type, enabled=False):
            codes = [
                (z_BLKD[:, :, k] @ book_VD.T).argmax(-1) for k, book_VD in enumerate(unit_books_KVD)
            ]
        return torch.stack(codes, dim=-1)

    def _gather(self, codes_BLK: Tensor, unit_books_KVD: Tensor) -> Tensor:
        offsets_K = torch.arange(self.num_codebooks, device=codes_BLK.device) * self.codebook_size
        return F.embedding(codes_BLK + offsets_K, unit_books_KVD.flatten(0, 1))
