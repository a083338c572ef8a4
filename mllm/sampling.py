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


@dataclass(frozen=True)
class _Group:
    """The pictures of a batch that are sampled alike."""

    params: SamplingParams
    rows_G: Tensor
    unconditional_G: Tensor  # rows; empty without guidance

    def choose(self, logits_NV: Tensor, noise_B: Tensor) -> Tensor:
        logits_GV = logits_NV[self.rows_G]
        if self.params.is_guided:
            unconditional_GV = logits_NV[self.unconditional_G]
            logits_GV = guide(logits_GV, unconditional_GV, self.params.guidance_scale)
        return sample(logits_GV, noise_B[self.rows_G], self.params)


class SubCodeSampler:
    """Chooses a sub-code for each of B pictures, each with settings of its own.

    It takes N rows of logits: those of the pictures, and behind them the unconditional ones of the
    pictures that are guided, in the same order. All rows of a picture get the same sub-code.
    """

    def __init__(self, settings: Sequence[SamplingParams], device: torch.device) -> None:
        guided = [picture for picture, params in enumerate(settings) if params.is_guided]
        rows = [*range(len(settings)), *guided]
        self.picture_of_row_N = torch.tensor(rows, device=device)
        self.groups = []
        for params in dict.fromkeys(settings):
            own = [picture for picture, other in enumerate(settings) if other == params]
            second = [len(settings) + guided.index(each) for each in own if params.is_guided]
            tensors = (
                torch.tensor(each, dtype=torch.long, device=device) for each in (own, second)
            )
            self.groups.append(_Group(params, *tensors))

    def __call__(self, logits_NV: Tensor, noise_B: Tensor) -> Tensor:
        """Sub-codes (N,), picked by uniform noise in [0, 1)."""
        logits_NV = logits_NV.float()
        codes_B = torch.empty_like(noise_B, dtype=torch.long)
        for group in self.groups:
            codes_B[group.rows_G] = group.choose(logits_NV, noise_B)
        return codes_B[self.picture_of_row_N]
