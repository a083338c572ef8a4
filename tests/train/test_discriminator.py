"""The discriminator: frozen features, learning heads, and a sample's own crop."""

import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from train import discriminator as module
from train.discriminator import (
    BACKBONE,
    DEPTHS,
    Discriminator,
    DiscriminatorConfig,
    RandomViT,
    build_discriminator,
    build_head,
    fit_patches,
)
from train.losses import hinge_generator_loss

SMALL = DiscriminatorConfig(random_backbone=RandomViT(width=64, depth=3))
SEEDS = torch.arange(6)


@pytest.fixture(scope="module")
def discriminator() -> Discriminator:
    torch.manual_seed(0)
    return build_discriminator(SMALL)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(len(SEEDS), 3, 48, 64, generator=generator) * 2 - 1


def test_each_head_gives_a_logit_per_patch(discriminator, pixels):
    logits = discriminator(pixels, SEEDS)
    assert logits.shape == (6, 3 * (48 // 14) * (64 // 14))


def test_a_samples_logits_do_not_depend_on_its_batch(discriminator, pixels):
    together = discriminator(pixels, SEEDS)
    alone = [discriminator(pixels[i : i + 1], SEEDS[i : i + 1]) for i in range(len(SEEDS))]
    # Products may be summed in another order; measured 4e-7.
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)


def test_a_sample_is_cropped_alike_whatever_it_is_batched_with(pixels):
    together = fit_patches(pixels, SEEDS)
    order = torch.tensor([4, 1])
    assert torch.equal(fit_patches(pixels[order], SEEDS[order]), together[order])


def test_half_of_the_samples_are_cropped_and_the_others_resized():
    count = 1000
    places = torch.arange(32.0).expand(count, 3, 48, 32).contiguous()
    fitted = fit_patches(places, torch.arange(count))
    assert fitted.shape == (count, 3, 42, 28)
    steps = fitted.diff(dim=-1)
    is_cropped = (steps == 1).all(dim=(1, 2, 3))
    assert is_cropped.float().mean() == pytest.approx(0.5, abs=0.05)
    assert set(fitted[is_cropped][:, 0, 0, 0].tolist()) == {0, 1, 2, 3, 4}
    resized = fit_patches(places[:1], None)
    assert torch.equal(fitted[~is_cropped], resized.expand(int((~is_cropped).sum()), -1, -1, -1))


@pytest.mark.parametrize(("side", "expected"), [(256, 252), (252, 252), (64, 56), (28, 28)])
def test_sides_become_the_largest_multiple_of_fourteen_below(side, expected):
    picture = torch.rand(1, 3, side, side)
    fitted = fit_patches(picture, torch.tensor([3]))
    assert fitted.shape[-2:] == (expected, expected)
    if side == expected:
        assert torch.equal(fitted, picture)


def test_pictures_with_too_few_patches_are_refused():
    message = "the discriminator needs pictures of at least 28 x 28 pixels, got 24 x 64; train on"
    with pytest.raises(ValueError, match=message):
        fit_patches(torch.zeros(1, 3, 24, 64), None)


def test_features_are_the_patches_plus_the_class_token_of_each_depth(discriminator):
    picture = torch.rand(2, 3, 28, 42) * 2 - 1
    backbone = discriminator.features.backbone
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    tokens = backbone._pos_embed(backbone.patch_embed(((picture + 1) / 2 - mean) / std))
    for block, found in zip(backbone.blocks, discriminator.features(picture), strict=True):
        tokens = block(tokens)
        expected = tokens[:, 1:] + tokens[:, :1]
        torch.testing.assert_close(found, expected.transpose(1, 2))


def test_a_head_is_a_layer_a_scaled_residual_and_a_logit():
    torch.manual_seed(0)
    head: Any = build_head(32)
    features = torch.randn(2, 32, 12)
    first, residual, last = head
    hidden = F.conv1d(features, first[0].weight)
    hidden = F.leaky_relu(F.group_norm(hidden, 32), 0.2)
    around = torch.cat([hidden[..., -4:], hidden, hidden[..., :4]], dim=-1)
    seen = F.conv1d(around, residual.layer[0].weight)
    seen = F.leaky_relu(F.group_norm(seen, 32), 0.2)
    expected = F.conv1d((hidden + seen) / math.sqrt(2), last.weight)
    torch.testing.assert_close(head(features), expected)


def test_the_heads_learn_and_the_backbone_does_not(discriminator, pixels):
    discriminator.train()
    discriminator(pixels, SEEDS).square().sum().backward()
    assert all(value.grad is not None for value in discriminator.heads.parameters())
    assert all(value.grad.abs().sum() > 0 for value in discriminator.heads.parameters())
    frozen = list(discriminator.features.parameters())
    assert frozen
    assert all(value.grad is None and not value.requires_grad for value in frozen)
    assert not any(each.training for each in discriminator.features.modules())
    assert discriminator.heads.training


def test_the_generator_gets_a_gradient_through_the_frozen_backbone(discriminator, pixels):
    pixels.requires_grad_()
    loss = hinge_generator_loss(discriminator(pixels, SEEDS))
    (gradient,) = torch.autograd.grad(loss, pixels)
    assert (gradient.flatten(1).abs().sum(dim=1) > 0).all()


def test_a_random_backbone_is_the_same_in_every_run_and_leaves_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = module._build_random_vit(RandomViT(width=32, depth=1))
    assert torch.equal(torch.rand(3), expected)
    second = module._build_random_vit(RandomViT(width=32, depth=1))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as timm publishes it, with random weights."""
    path = tmp_path_factory.mktemp("dinov2") / "model.safetensors"
    save_file(timm.create_model(BACKBONE).state_dict(), path)
    return path


def test_five_heads_read_dinov2_from_a_file(dinov2):
    discriminator = build_discriminator(DiscriminatorConfig(weights=dinov2))
    assert len(discriminator.heads) == len(DEPTHS) == 5
    assert discriminator(torch.zeros(1, 3, 56, 56)).shape == (1, 5 * 16)
    learned = sum(value.numel() for value in discriminator.heads.parameters())
    assert learned == 5 * (384 * 384 * 10 + 6 * 384 + 384 + 1)


def test_without_a_file_dinov2_comes_from_the_hub(dinov2, monkeypatch):
    published = {("timm/vit_small_patch14_dinov2.lvd142m", "model.safetensors"): dinov2}
    monkeypatch.setattr(module, "hf_hub_download", lambda *name: published[name])
    backbone = build_discriminator(DiscriminatorConfig()).features.backbone
    assert torch.equal(backbone.state_dict()["pos_embed"], load_file(dinov2)["pos_embed"])


def test_offline_it_says_which_file_to_get(monkeypatch):
    def fail(*name: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(module, "hf_hub_download", fail)
    message = r"no reachable hub model .*; download model.safetensors of timm/vit_small.* and name"
    with pytest.raises(FileNotFoundError, match=message):
        build_discriminator(DiscriminatorConfig())


def test_a_missing_file_and_anothers_weights_are_refused(tmp_path):
    missing = tmp_path / "none.safetensors"
    with pytest.raises(FileNotFoundError, match=r"no DINOv2 weights at .*; download model"):
        build_discriminator(DiscriminatorConfig(weights=missing))
    other = tmp_path / "other.safetensors"
    save_file({"cls_token": torch.zeros(1, 1, 384)}, other)
    with pytest.raises(ValueError, match="do not fit the config: missing pos_embed"):
        build_discriminator(DiscriminatorConfig(weights=other))


def test_weights_and_a_random_backbone_exclude_each_other(tmp_path):
    with pytest.raises(ValidationError, match="exclude each other; leave one out"):
        DiscriminatorConfig(weights=tmp_path, random_backbone=RandomViT(width=32, depth=1))
    with pytest.raises(ValidationError, match="multiple of 32"):
        RandomViT(width=48, depth=1)
