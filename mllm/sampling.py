"""From logits to one sub-code per picture: guidance, temperature, top-k, top-p, all pure functions.

Each picture has its own seed, and its random numbers are drawn on the CPU before the first step:
the same seed gives the same picture whatever it is batched with and whichever device runs it.

Shapes: N rows, B pictures, L visual tokens, K codebooks, V codebook size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SamplingParams:
    """How a picture is drawn; the defaults are those of the published scores."""

    guidance_scale: float = 7.0  # uncond + scale * (cond - uncond); 1: no guidance
    temperature: float = 1.0  # 0: always the most probable entry
    top_k: int | None = None  # only the k most probable entries
    top_p: float | None = None  # only the most probable entries that add up to p

    def __post_init__(self) -> None:
        self._check("guidance_scale", self.guidance_scale >= 0, "at least 0")
        self._check("temperature", self.temperature >= 0, "at least 0")
        self._check("top_k", self.top_k is None or self.top_k >= 1, "at least 1, or None")
        self._check("top_p", self.top_p is None or 0 < self.top_p <= 1, "in (0, 1], or None")

    def _check(self, name: str, is_valid: bool, expected: str) -> None:
        if not is_valid:
            raise ValueError(f"{name} must be {expected}, got {getattr(self, name)}")

    @property
    def is_guided(self) -> bool:
        return self.guidance_scale != 1


def guide(conditional_NV: Tensor, unconditional_NV: Tensor, scale: float) -> Tensor:
    """Classifier-free guidance: away from what the model draws without a prompt."""
    return unconditional_NV + scale * (conditional_NV - unconditional_NV)


def keep_top_k(logits_NV: Tensor, k: int) -> Tensor:
    """Logits with all but the k largest of each row at -inf."""
    smallest_kept_N1 = logits_NV.topk(min(k, logits_NV.shape[-1])).values[:, -1:]
    return logits_NV.masked_fill(logits_NV < smallest_kept_N1, float("-inf"))


def keep_top_p(logits_NV: Tensor, p: float) -> Tensor:
    """Logits with all at -inf that the most probable ones, adding up to p, do without."""
    sorted_NV, order_NV = logits_NV.sort(descending=True)
    probs_NV = sorted_NV.softmax(dim=-1)
    is_dropped_NV = probs_NV.cumsum(dim=-1) - probs_NV >= p
    is_dropped_NV[:, 0] = False
    is_dropped_NV = is_dropped_NV.scatter(1, order_NV, is_dropped_NV)
    return logits_NV.masked_fill(is_dropped_NV, float("-inf"))


def filter_logits(
    logits_NV: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Tensor:
    """Logits of the distribution to sample from: temperature (above 0), then top-k, then top-p."""
    logits_NV = logits_NV / temperature
    if top_k is not None:
        logits_NV = keep_top_k(logits_NV, top_k)
    if top_p is not None:
        logits_NV = keep_top_p(logits_NV, top_p)
    return logits_NV


def greedy(logits_NV: Tensor) -> Tensor:
    """The most probable entry of each row, (N,)."""
    return logits_NV.argmax(dim=-1)


def sample(logits_NV: Tensor, noise_N: Tensor, params: SamplingParams) -> Tensor:
    """One entry per row, (N,), where uniform noise in [0, 1) picks it from the distribution."""
    logits_NV = logits_NV.float()
    if params.temperature == 0:
        return greedy(logits_NV)
    logits_NV = filter_logits(
        logits_NV, temperature=params.temperature, top_k=params.top_k, top_p=params.top_p
    )
    cumulative_NV = logits_NV.softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the last value, which rounding may leave a little off 1.
    threshold_N1 = noise_N[:, None] * cumulative_NV[:, -1:]
    return torch.searchsorted(cumulative_NV, threshold_N1, right=True).squeeze(1)


def build_noise(seeds: Sequence[int], num_tokens: int, num_codebooks: int) -> Tensor:
    """Uniform numbers (B, L, K) in [0, 1), a picture's own for each seed."""
    shape = (num_tokens, num_codebooks)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return torch.stack([torch.rand(shape, generator=generator) for generator in generators])


class SubCodeSampler:
    """Draws the sub-codes of B pictures in order: K for the first visual token, then the next.

    With guidance it takes 2B rows of logits, conditional before unconditional, and gives both
    halves the same sub-codes.
    """

    def __init__(self, params: SamplingParams, noise_BLK: Tensor) -> None:
        self.params = params
        self.noise = iter(noise_BLK.flatten(1).unbind(dim=1))

    def __call__(self, logits_NV: Tensor) -> Tensor:
        noise_B = next(self.noise)
        if not self.params.is_guided:
            return sample(logits_NV, noise_B, self.params)
        conditional_BV, unconditional_BV = logits_NV.float().chunk(2)
        logits_BV = guide(conditional_BV, unconditional_BV, self.params.guidance_scale)
        return sample(logits_BV, noise_B, self.params).repeat(2)
