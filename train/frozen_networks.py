"""Networks that only judge what others make: pretrained or random, and never trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
from torch import nn

RANDOM_SEED = 0


class FrozenNetwork(nn.Module):
    """Gradients pass through to the input, but no weight takes one, and dropout stays off."""

    def freeze(self) -> None:
        """To be called when the network is complete."""
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, whatever the module around it does."""
        return super().train(False)


@contextmanager
def fixed_random_weights() -> Iterator[None]:
    """What is built inside gets the same random weights in every process and every run.

    They are not learned, so no checkpoint need hold them. The global random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        yield
