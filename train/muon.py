"""Muon whose updates are made orthogonal in float32, for CPUs that only emulate bfloat16.

`torch.optim.Muon` computes in bfloat16 whatever the weights are. Papers: arXiv 2502.16982 for the
size of an update; the iteration and its factors are Keller Jordan's.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
NUM_ITERATIONS = 5
FACTORS = (3.4445, -4.7750, 2.0315)  # of X, (X X^T) X and (X X^T)^2 X in each iteration
UPDATE_RMS = 0.2  # of an update's elements, as of AdamW's
EPS = 1e-7


class Float32Muon(torch.optim.Optimizer):
    """For matrices only; the same steps as `torch.optim.Muon` with `match_rms_adamw`."""

    def __init__(self, matrices: Iterable[Tensor], *, lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients' running average, looking ahead by one (Nesterov)."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum"] = torch.zeros_like(matrix)
                state["momentum"].lerp_(matrix.grad, 1 - MOMENTUM)
                update = orthogonal(matrix.grad.lerp(state["momentum"], MOMENTUM))
                scale = UPDATE_RMS * math.sqrt(max(matrix.shape))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with all its singular values brought near 1, by Newton-Schulz iterations."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    wide = matrix.T if is_tall else matrix
    wide = wide / wide.norm().clamp(min=EPS)
    first, second, third = FACTORS
    for _ in range(NUM_ITERATIONS):
        gram = wide @ wide.T
        wide = first * wide + (second * gram + third * gram @ gram) @ wide
    return wide.T if is_tall else wide
