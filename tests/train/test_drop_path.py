"""Stochastic depth by sample: the same in any batch, as often as its rate says."""

import torch
from timm.layers import DropPath
from torch import nn

from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from train.drop_path import SampleDropPath, SeededDropPath
from train.tokenizer_forward import TokenizerForward
from unitok.model import UniTok


def build_model() -> UniTok:
    """A tiny tokenizer of which half of the branches are left out."""
    model = build_tiny_tokenizer()
    for block in (*model.encoder.blocks, *model.decoder.blocks):
        block.drop_path1, block.drop_path2 = DropPath(0.5), DropPath(0.5)
    return model


def test_a_sample_keeps_the_same_paths_in_any_batch_and_again() -> None:
    model = build_model()
    side, length = model.config.image_size, model.config.text_context_length
    forward = TokenizerForward(model, decode_every=1).train()
    pixels, seeds = torch.rand(4, 3, side, side) * 2 - 1, torch.tensor([3, 5, 7, 11])
    text_ids = torch.ones(4, length, dtype=torch.int64)
    whole = forward(pixels, text_ids, seeds)
    again = forward(pixels, text_ids, seeds)
    assert torch.equal(whole.reconstruction, again.reconstruction)
    half = forward(pixels[2:], text_ids[2:], seeds[2:])
    torch.testing.assert_close(half.latents, whole.latents[2:])
    others = forward(pixels, text_ids, seeds + 1)
    assert not torch.allclose(others.latents, whole.latents)


def test_features_alone_are_those_of_the_forward_pass() -> None:
    model = build_model()
    side, length = model.config.image_size, model.config.text_context_length
    forward = TokenizerForward(model, decode_every=2).train()
    batch = torch.rand(4, 3, side, side), torch.ones(4, length, dtype=torch.int64), torch.arange(4)
    output = forward(*batch)
    assert len(output.reconstruction) == 2
    updates = model.quantizer.num_updates.clone()
    image, text = forward.features(*batch)
    torch.testing.assert_close(image, output.image_features)
    torch.testing.assert_close(text, output.text_features)
    assert model.quantizer.num_updates == updates


def test_branches_are_left_out_at_their_rate_and_the_others_scaled() -> None:
    module = nn.Sequential(DropPath(0.25), nn.Identity())
    paths = SeededDropPath(module, "test")
    paths.draw(torch.arange(20000))
    scale = module(torch.ones(20000, 1, 1)).flatten()
    assert set(scale.tolist()) == {0.0, scale.max().item()}
    torch.testing.assert_close(scale.max(), torch.tensor(1 / 0.75))
    assert abs((scale == 0).float().mean().item() - 0.25) < 0.01
    assert isinstance(module[0], SampleDropPath)
    module.eval()
    assert torch.equal(module(torch.ones(2, 1, 1)), torch.ones(2, 1, 1))
