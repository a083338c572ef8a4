"""Stochastic depth whose choices belong to the sample (arXiv 1603.09382).

timm's layer draws from the global generator: the same sample would then keep other paths in another
batch, in another process, or when it is computed a second time.

Shapes: B samples, L visual tokens, C width.
"""

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from train.sample_seeds import derive, uniform


class SampleDropPath(nn.Module):
    """Leaves out a branch for the samples that `SeededDropPath` chose, in training."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.scale_B = torch.ones(())  # 0 where the branch is left out, 1 / (1 - rate) elsewhere

    def forward(self, x_BLC: Tensor) -> Tensor:
        if not self.training:
            return x_BLC
        return x_BLC * self.scale_B.to(x_BLC.dtype)[:, None, None]


class SeededDropPath:
    """All stochastic depth of a module."""

    def __init__(self, module: nn.Module, name: str) -> None:
        """Takes the place of timm's layers; `name` tells the random numbers from others."""
        self.name = name
        self.layers = []
        for parent in list(module.modules()):
            for attribute, child in list(parent.named_children()):
                if isinstance(child, DropPath):
                    layer = SampleDropPath(child.drop_prob)
                    setattr(parent, attribute, layer)
                    self.layers.append(layer)

    def draw(self, seeds: Tensor) -> None:
        """Choose for the samples (B,) of the next forward pass."""
        if not self.layers:
            return
        chance_BN = uniform(derive(seeds, self.name), (len(self.layers),))
        for layer, chance_B in zip(self.layers, chance_BN.unbind(1), strict=True):
            layer.scale_B = (chance_B >= layer.rate) / (1 - layer.rate)
