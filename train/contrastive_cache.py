"""The contrastive loss of a batch that is too large to be computed at once, and exactly so.

Gradient caching, arXiv 2101.06983: features of all parts are computed first, without a graph; the
loss of all of them gives a gradient for each feature; then every part is computed again and
receives its own. It works because nothing in a forward pass depends on anything but the samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from train.losses import contrastive_loss
from train.tokenizer_data import TokenizerBatch
from unitok.model import UniTokOutput


@dataclass(frozen=True, eq=False)
class ContrastiveCache:
    """The loss over all parts, and its gradients by what each part gives."""

    loss: Tensor
    image_gradients: tuple[Tensor, ...]  # (B, E) of each part
    text_gradients: tuple[Tensor, ...]
    scale_gradient: Tensor

    def surrogate(self, part: int, output: UniTokOutput) -> Tensor:
        """A scalar whose gradient, added up over the parts, is that of the loss."""
        assert output.text_features is not None
        image = (output.image_features.float() * self.image_gradients[part]).sum()
        text = (output.text_features.float() * self.text_gradients[part]).sum()
        return image + text + self.scale_gradient * output.logit_scale / len(self.image_gradients)


def cache_contrastive(
    parts: Sequence[TokenizerBatch],
    features: Callable[[TokenizerBatch], tuple[Tensor, Tensor]],
    logit_scale: Tensor,
) -> ContrastiveCache:
    """`features` gives image and text features (B, E) of a part."""
    with torch.no_grad():
        images, texts = zip(*(features(part) for part in parts), strict=True)
    sizes = [len(part.pixels) for part in parts]
    image_leaf = torch.cat(images).float().requires_grad_()
    text_leaf = torch.cat(texts).float().requires_grad_()
    scale_leaf = logit_scale.detach().requires_grad_()
    loss = contrastive_loss(image_leaf, text_leaf, scale_leaf)
    image, text, scale = torch.autograd.grad(loss, (image_leaf, text_leaf, scale_leaf))
    return ContrastiveCache(loss.detach(), image.split(sizes), text.split(sizes), scale)
