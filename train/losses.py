"""Losses of the tokenizer, one function each. Pixels are (B, 3, H, W) in [-1, 1].

A loss over a batch that is split evenly over processes, averaged over them as DDP averages
gradients, is the loss over the whole batch: what compares samples with each other gathers them.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from open_clip.loss import gather_features
from torch import Tensor
from torch.distributed.nn.functional import all_reduce

MIN_ADAPTIVE_WEIGHT, MAX_ADAPTIVE_WEIGHT = 0.015, 1e4
ADAPTIVE_EPS = 1e-6
ENTROPY_TEMPERATURE = 0.01  # sharp, because similarities to the nearest entries differ little


def l1_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute error."""
    return F.l1_loss(reconstruction.float(), pixels.float())


def l2_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """Mean squared error."""
    return F.mse_loss(reconstruction.float(), pixels.float())


def edge_loss(reconstruction: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute error of the differences between neighbours: what is blurred costs most.

    A gradient difference loss as in arXiv 1511.05440, section 3.2, on signed differences. It stands
    in for perceptual losses where no pretrained network is at hand.
    """
    error = reconstruction.float() - pixels.float()
    return error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


def contrastive_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's symmetric loss over l2-normalised features (B, E); arXiv 2103.00020.

    Over several processes every sample is told apart from those of all of them: features are
    gathered with their gradients, and each process returns the loss of the whole batch.
    """
    images, texts = image_features.float(), text_features.float()
    if num_processes() > 1:
        # Gradients come back summed over processes, which DDP's average makes right.
        images, texts = gather_features(images, texts, gather_with_grad=True)
    # bfloat16 would round logits, which reach 100, to halves.
    with torch.autocast(images.device.type, enabled=False):
        logits = logit_scale * images @ texts.T
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """What a discriminator minimises over logits (B, N); arXiv 1705.02894."""
    return F.relu(1 - real_logits.float()).mean() + F.relu(1 + fake_logits.float()).mean()


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """What a generator minimises: minus the discriminator's mean logit; arXiv 1705.02894."""
    return -fake_logits.float().mean()


def consistency_loss(augmented_logits: Tensor, logits: Tensor) -> Tensor:
    """Mean squared change of logits (B, N) by augmentation; arXiv 2002.04724.

    Balanced when it is added up for real pictures and for reconstructions. Gradients flow into
    both sides.
    """
    return F.mse_loss(augmented_logits.float(), logits.float())


def adaptive_weight(reconstruction_gradient: Tensor, generator_gradient: Tensor) -> Tensor:
    """How much the generator's loss weighs, so that neither loss rules; arXiv 2012.09841, eq. 7.

    Takes the gradients of both losses by the decoder's last weights, averaged over processes.
    Returns a scalar without gradient.
    """
    norm = reconstruction_gradient.detach().float().norm()
    generator_norm = generator_gradient.detach().float().norm()
    weight = norm / (generator_norm + ADAPTIVE_EPS)
    return weight.clamp(MIN_ADAPTIVE_WEIGHT, MAX_ADAPTIVE_WEIGHT)


def entropy_loss(similarities: Tensor, temperature: float = ENTROPY_TEMPERATURE) -> Tensor:
    """Sure about each latent, even over the codebook; arXiv 2310.05737, section 3.

    The mean entropy of the choices less the entropy of the mean choice, in nats. Takes the
    similarities (N, K, V) of N latents to the entries of K codebooks; the mean choice is taken
    over the latents of all processes.
    """
    log_probs = (similarities.float() / temperature).log_softmax(dim=-1)
    probs = log_probs.exp()
    mean_probs = probs.mean(dim=0)
    if num_processes() > 1:
        mean_probs = all_reduce(mean_probs) / num_processes()
    choice_entropy = -(probs * log_probs).sum(dim=-1).mean()
    # An entry that nobody chooses has an infinite slope: next to nothing stands for nothing.
    mean_probs = mean_probs.clamp(min=torch.finfo(torch.float32).tiny)
    return choice_entropy - torch.special.entr(mean_probs).sum(dim=-1).mean()


def num_processes() -> int:
    """How many processes share the batch."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
