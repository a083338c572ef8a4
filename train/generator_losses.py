"""What the tokenizer learns from: the weighted sum of its losses, and the way back of gradients.

The losses of decoded pictures are followed back to the pictures only, one after another, and their
gradients are weighed there. So a discriminator's graph is gone before that of the decoder is
walked, and the adaptive weight costs no second walk through it.

Shapes: B samples of this process, D of them decoded.
"""

from collections.abc import Mapping

import torch
from accelerate.utils import reduce
from torch import Tensor, nn

from train.adversary import Adversary
from train.contrastive_cache import ContrastiveCache
from train.losses import (
    adaptive_weight,
    contrastive_loss,
    edge_loss,
    entropy_loss,
    l1_loss,
    l2_loss,
)
from train.perceptual import PerceptualConfig, PerceptualLoss
from train.tokenizer_config import LossWeights
from train.tokenizer_data import TokenizerBatch
from unitok.model import UniTok, UniTokOutput


class GeneratorLosses:
    """Losses of a tokenizer, some of them judged by frozen networks or by an adversary."""

    def __init__(
        self,
        weights: LossWeights,
        model: UniTok,
        *,
        perceptual: PerceptualConfig,
        adversary: Adversary | None,
    ) -> None:
        self.weights = weights
        self.model = model
        self.adversary = adversary
        self.perceptual = PerceptualLoss(perceptual).to(model.device) if weights.lpips else None

    def surrogate(
        self,
        output: UniTokOutput,
        batch: TokenizerBatch,
        *,
        step: int,
        share: float,
        cache: tuple[ContrastiveCache, int] | None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar with the gradients of `share` of the loss, and values to log.

        `cache` holds the contrastive loss of a batch in parts, and which part this one is. It
        counts in full: parts add up to it.
        """
        total, values = self._latent_losses(output)
        if self.weights.reconstructs:
            assert output.reconstruction is not None
            pixels = batch.pixels[:: len(batch.pixels) // len(output.reconstruction)]
            seeds = batch.seeds[:: len(batch.seeds) // len(pixels)]
            rebuilt = output.reconstruction.float()
            gradient, pixel_values = self._pixel_gradient(rebuilt, pixels, seeds=seeds, step=step)
            values |= pixel_values
            total = total + (rebuilt * gradient).sum()
        surrogate = total * share
        if self.weights.clip:
            term, values["clip"] = self._contrastive(output, cache, share=share)
            surrogate = surrogate + self.weights.clip * term
        values = {name: value.detach() for name, value in values.items()}
        named = {_logged_name(name): value for name, value in values.items()}
        return surrogate, {"loss": self._weighted_sum(values, step), **named}

    def _latent_losses(self, output: UniTokOutput) -> tuple[Tensor, dict[str, Tensor]]:
        """Of the quantizer, whose losses are followed back in the usual way."""
        values = {"vq": output.vq_loss}
        if self.weights.entropy:
            values["entropy"] = entropy_loss(self.model.quantizer.similarities(output.latents))
        return _sum_by(self.weights, values), values

    def _pixel_gradient(
        self, rebuilt: Tensor, pixels: Tensor, *, seeds: Tensor, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Of all losses of pictures (D, 3, H, W) by these."""
        values = self._reconstruction_losses(rebuilt, pixels)
        (gradient,) = torch.autograd.grad(_sum_by(self.weights, values), rebuilt)
        if self.adversary is None or not self.adversary.is_active(step):
            return gradient, values
        values["gan"] = self.adversary.generator_loss(rebuilt, seeds, step=step)
        (gan_gradient,) = torch.autograd.grad(values["gan"], rebuilt)
        weight = self._adaptive_weight(rebuilt, gradient, gan_gradient)
        values["adaptive_weight"] = weight
        factor = self.weights.gan * self.adversary.weight(step) * weight
        return gradient + factor * gan_gradient, values

    def _reconstruction_losses(self, rebuilt: Tensor, pixels: Tensor) -> dict[str, Tensor]:
        losses = {"l1": l1_loss, "l2": l2_loss, "edge": edge_loss, "lpips": self.perceptual}
        return {
            name: loss(rebuilt, pixels)
            for name, loss in losses.items()
            if loss is not None and getattr(self.weights, name)
        }

    def _adaptive_weight(self, rebuilt: Tensor, gradient: Tensor, gan_gradient: Tensor) -> Tensor:
        """From gradients by the decoder's last weights, averaged over all processes."""
        own = [
            torch.autograd.grad(
                rebuilt, self.model.decoder.last_layer, grad_outputs=each, retain_graph=True
            )[0]
            for each in (gradient, gan_gradient)
        ]
        reconstruction, generator = reduce(torch.stack(own), reduction="mean")
        return adaptive_weight(reconstruction, generator)

    def _contrastive(
        self, output: UniTokOutput, cache: tuple[ContrastiveCache, int] | None, *, share: float
    ) -> tuple[Tensor, Tensor]:
        """What has the gradients of this part, and the loss."""
        if cache is not None:
            whole, part = cache
            return whole.surrogate(part, output), whole.loss
        assert output.text_features is not None
        loss = contrastive_loss(output.image_features, output.text_features, output.logit_scale)
        return share * loss, loss

    def _weighted_sum(self, values: Mapping[str, Tensor], step: int) -> Tensor:
        """The loss itself, to be looked at."""
        weighted = {name: each for name, each in values.items() if name in LossWeights.model_fields}
        if "gan" in weighted:
            assert self.adversary is not None
            factor = self.adversary.weight(step) * values["adaptive_weight"]
            weighted["gan"] = factor * weighted["gan"]
        return _sum_by(self.weights, weighted)


def freeze_idle(model: UniTok, weights: LossWeights) -> None:
    """Freeze what no loss reaches: else weight decay alone would move it."""
    idle: list[nn.Module] = []
    if not weights.clip:
        idle += [model.text_encoder, model.fc_norm, model.projection]
        model.logit_scale.requires_grad_(False)
    if not weights.reconstructs:
        idle.append(model.decoder)
    if not weights.clip and not weights.reconstructs:
        idle.append(model.post_quant_proj)
    for module in idle:
        module.requires_grad_(False)


def _logged_name(name: str) -> str:
    return f"loss/{name}" if name in LossWeights.model_fields else name


def _sum_by(weights: LossWeights, values: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([getattr(weights, name) * value for name, value in values.items()]).sum()
