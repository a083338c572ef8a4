"""Losses of the tokenizer, one function each. Pixels are (B, 3, H, W) in [-1, 1]."""

import torch
import torch.nn.functional as F
from torch import Tensor


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
    """CLIP's symmetric loss over l2-normalised features (B, E); arXiv 2103.00020."""
    logits = logit_scale * image_features.float() @ text_features.float().T
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
