"""The tokenizer's discriminator: small convolutional heads that read a frozen DINOv2-S.

A projected discriminator as in StyleGAN-T, arXiv 2301.09515, with the sizes of UniTok's: five heads
read five depths, and each gives a logit per patch.

Shapes: B samples, L patches, C backbone width, N logits of a sample.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import timm
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from pydantic import Field, model_validator
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from train.augment import window
from train.config import RunConfig
from train.frozen_networks import FrozenNetwork, fixed_random_weights
from train.sample_seeds import derive, integers
from unitok.checkpoint import check_keys, load_weights
from unitok.hub import explain_download

BACKBONE = "vit_small_patch14_dinov2.lvd142m"
BACKBONE_REPOSITORY = f"timm/{BACKBONE}"
BACKBONE_FILE = "model.safetensors"
DEPTHS = (0, 2, 5, 8, 11)  # blocks of the backbone that have a head
PATCH_SIZE = 14
NUM_GROUPS = 32  # of the heads' norms
HEAD_WIDTH = 9  # patches that a head's convolution sees, row after row
SLOPE = 0.2
INIT_GAIN = 0.5
RANDOM_ATTENTION_WIDTH = 32
MIN_SIDE = 2 * PATCH_SIZE  # circular padding needs half a HEAD_WIDTH of patches


class RandomViT(RunConfig):
    """A small backbone with random weights, one head per block: to try a recipe, not to use it."""

    width: int = Field(gt=0, multiple_of=NUM_GROUPS)
    depth: int = Field(gt=0)


class DiscriminatorConfig(RunConfig):
    """Which frozen network the heads read."""

    weights: Path | None = None  # DINOv2-S as a safetensors file; None: from the hub or its cache
    random_backbone: RandomViT | None = None  # in place of DINOv2-S

    @model_validator(mode="after")
    def _one_backbone(self) -> Self:
        if self.weights is not None and self.random_backbone is not None:
            raise ValueError("weights and random_backbone exclude each other; leave one out")
        return self


class Discriminator(nn.Module):
    """Tells pictures from reconstructions, patch by patch. Only `heads` learns."""

    def __init__(self, backbone: VisionTransformer, depths: Sequence[int]) -> None:
        """One head for each of the backbone's blocks whose numbers are in `depths`."""
        super().__init__()
        self.features = FrozenFeatures(backbone, depths)
        self.heads = nn.ModuleList(build_head(backbone.embed_dim) for _ in depths)

    def forward(self, pixels: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Logits (B, N) of pixels (B, 3, H, W) in [-1, 1]: high for pictures.

        With the samples' seeds (B,), on the same device, half of the samples are cropped at random
        and the others are resized, so that both details and the whole count; without, all are
        resized. The same seed gives the same crop.
        """
        features = self.features(fit_patches(pixels, seeds))
        logits = [head(each) for head, each in zip(self.heads, features, strict=True)]
        return torch.cat(logits, dim=1).flatten(1)


class FrozenFeatures(FrozenNetwork):
    """What a ViT knows of each patch and of the whole picture, at several depths."""

    def __init__(self, backbone: VisionTransformer, depths: Sequence[int]) -> None:
        super().__init__()
        self.backbone = backbone
        self.depths = list(depths)
        mean = torch.tensor(IMAGENET_DEFAULT_MEAN)[:, None, None]
        std = torch.tensor(IMAGENET_DEFAULT_STD)[:, None, None]
        # Of pixels in [-1, 1] instead of [0, 1].
        self.register_buffer("mean", 2 * mean - 1, persistent=False)
        self.register_buffer("std", 2 * std, persistent=False)
        self.mean: Tensor
        self.std: Tensor
        self.freeze()

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Features (B, C, L) of pixels (B, 3, H, W) in [-1, 1], sides in whole patches."""
        found: Any = self.backbone.forward_intermediates(
            (pixels - self.mean) / self.std,
            indices=self.depths,
            return_prefix_tokens=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        return [(patches + whole).transpose(1, 2) for patches, whole in found]


class Residual(nn.Module):
    """Adds what a layer makes of its input, and keeps the variance."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        return (features + self.layer(features)) / math.sqrt(2)


def build_head(width: int) -> nn.Sequential:
    """From features (B, C, L) to logits (B, 1, L)."""
    head = nn.Sequential(
        _build_layer(width, kernel_size=1),
        Residual(_build_layer(width, kernel_size=HEAD_WIDTH)),
        nn.Conv1d(width, 1, 1),
    )
    for module in head.modules():
        if isinstance(module, nn.Conv1d):
            nn.init.xavier_normal_(module.weight, gain=INIT_GAIN)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
    return head


def _build_layer(width: int, *, kernel_size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(width, width, kernel_size, padding="same", padding_mode="circular"),
        nn.GroupNorm(NUM_GROUPS, width),
        nn.LeakyReLU(SLOPE),
    )


def fit_patches(pixels: Tensor, seeds: Tensor | None) -> Tensor:
    """Pixels (B, 3, H, W) whose sides are whole patches: cropped or area-resized by seeds (B,).

    Without seeds, all are resized.
    """
    height, width = pixels.shape[-2:]
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"the discriminator needs pictures of at least {MIN_SIDE} x {MIN_SIDE} pixels, got "
            f"{height} x {width}; train on larger ones or set the adversarial weight to 0"
        )
    size = (height - height % PATCH_SIZE, width - width % PATCH_SIZE)
    resized = F.interpolate(pixels.float(), size, mode="area")
    if seeds is None:
        return resized
    bounds = (2, height - size[0] + 1, width - size[1] + 1)
    is_cropped, top, left = integers(derive(seeds, "discriminator crop"), bounds).unbind(1)
    cropped = window(pixels.float(), size, top=top, left=left)
    return torch.where(is_cropped.bool()[:, None, None, None], cropped, resized)


def build_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """Fresh heads over the frozen backbone that the config names.

    Raises FileNotFoundError if its weights are neither at the given path nor to be had from the
    hub, and ValueError if they are another network's.
    """
    if config.random_backbone is not None:
        backbone = _build_random_vit(config.random_backbone)
        return Discriminator(backbone, range(config.random_backbone.depth))
    return Discriminator(_load_dinov2(config.weights), DEPTHS)


def outline_discriminator(config: DiscriminatorConfig) -> Discriminator:
    """One of the same layers, whose backbone's weights are not read: to count parameters."""
    if config.random_backbone is not None:
        return build_discriminator(config)
    return Discriminator(_build_dinov2(), DEPTHS)


def _build_random_vit(config: RandomViT) -> VisionTransformer:
    with fixed_random_weights():
        return VisionTransformer(
            img_size=8 * PATCH_SIZE,
            patch_size=PATCH_SIZE,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.width // RANDOM_ATTENTION_WIDTH,
            num_classes=0,
            dynamic_img_size=True,
        )


def _build_dinov2() -> VisionTransformer:
    backbone = timm.create_model(BACKBONE, dynamic_img_size=True)
    assert isinstance(backbone, VisionTransformer)
    return backbone


def _load_dinov2(path: Path | None) -> VisionTransformer:
    remedy = (
        f"download {BACKBONE_FILE} of {BACKBONE_REPOSITORY} and name the file as the "
        "discriminator's weights"
    )
    if path is None:
        with explain_download(BACKBONE_REPOSITORY, revision=None, expected=remedy):
            path = Path(hf_hub_download(BACKBONE_REPOSITORY, BACKBONE_FILE))
    elif not path.is_file():
        raise FileNotFoundError(f"no DINOv2 weights at {path}; {remedy}")
    backbone = _build_dinov2()
    weights = load_weights(path)
    check_keys(weights, backbone.state_dict(), source=path)
    backbone.load_state_dict(weights)
    return backbone
