"""How evenly a tokenizer uses the entries of its codebooks.

Shapes: N pictures, L visual tokens, K codebooks, V codebook size.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unitok.quantizer import USED_SHARE


@dataclass(frozen=True, eq=False)
class CodebookUse:
    """Of each codebook over a set of pictures."""

    usage_K: NDArray  # percent of the entries with more than 1 % of the uniform probability
    perplexity_K: NDArray  # 1..V: as many equally frequent entries would be as hard to guess


def measure_use(codes_NLK: NDArray, codebook_size: int) -> CodebookUse:
    """Count the entries in codes (N, L, K); usage as in training, but over all pictures."""
    counts_KV = np.stack(
        [
            np.bincount(codes_NLK[..., k].ravel(), minlength=codebook_size)
            for k in range(codes_NLK.shape[-1])
        ]
    )
    return use_of_shares(counts_KV / counts_KV.sum(axis=1, keepdims=True))


def use_of_shares(probs_KV: NDArray) -> CodebookUse:
    """From the share of each entry, (K, V)."""
    logs_KV = np.log(probs_KV, where=probs_KV > 0, out=np.zeros_like(probs_KV))
    used_KV = probs_KV > USED_SHARE / probs_KV.shape[1]
    return CodebookUse(100 * used_KV.mean(axis=1), np.exp(-(probs_KV * logs_KV).sum(axis=1)))
