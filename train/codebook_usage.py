"""How much of each codebook is in use.

Shapes: K codebooks, V entries of each.
"""

import torch
from torch import Tensor

from unitok.quantizer import USED_SHARE


def codebook_usage(probs_KV: Tensor) -> Tensor:
    """Percent of the entries of each codebook that are in use, (K,), from their shares."""
    return 100 * (probs_KV > USED_SHARE / probs_KV.shape[1]).float().mean(dim=1)


def perplexity(probs_KV: Tensor) -> Tensor:
    """As how many equally frequent entries each codebook counts, (K,): from 1 to V."""
    return torch.special.entr(probs_KV.double()).sum(dim=1).exp().float()
