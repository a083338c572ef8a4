"""Peers: each gives what its own library gives, and says what it cannot do."""

import numpy as np
import open_clip
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from eval.tokenizer_peers import load_feature_model, load_reconstructor
from tests.eval.tiny_clip import TINY, save_tiny_clip
from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from unitok.fingerprint import fingerprint
from unitok.image import preprocess

CPU = torch.device("cpu")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))


def random_pixels(side: int = 32) -> torch.Tensor:
    return torch.rand(2, 3, side, side) * 2 - 1


@pytest.fixture
def unitok_name(tmp_path):
    build_tiny_tokenizer().save_pretrained(tmp_path / "unitok")
    return f"unitok:{tmp_path / 'unitok'}"


@pytest.fixture
def autoencoder(tmp_path):
    torch.manual_seed(0)
    model = AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    ).eval()
    model.save_pretrained(tmp_path / "vae")
    return model


@torch.inference_mode()
def test_ours_reconstructs_and_has_features_of_pictures_and_texts(unitok_name):
    ours = build_tiny_tokenizer()
    pixels = random_pixels()
    peer = load_reconstructor(unitok_name, device=CPU)
    assert (peer.image_size, peer.codebook_size) == (32, 32)
    assert peer.fingerprint == ours.fingerprint
    result = peer.reconstruct(pixels)
    assert torch.equal(result.codes, ours.encode(pixels))
    assert torch.equal(result.pixels, ours.decode(result.codes))
    model = load_feature_model(unitok_name, device=CPU)
    assert torch.equal(model.encode_image(pixels), ours.encode_image(pixels))
    assert torch.equal(model.encode_text(["a", "b"]), ours.encode_text(["a", "b"]))
    expected = preprocess(PICTURE, "zero_shot", image_size=32)[0]
    assert torch.equal(model.prepare(PICTURE), expected)


@torch.inference_mode()
def test_the_probe_sees_the_mean_of_the_tokens_before_the_projection(unitok_name):
    ours = build_tiny_tokenizer()
    pixels = random_pixels()
    features = load_feature_model(unitok_name, device=CPU).probe_features(pixels)
    assert features.shape == (2, ours.config.width)
    projected = ours.projection(ours.fc_norm(features))
    assert torch.allclose(
        torch.nn.functional.normalize(projected, dim=-1), ours.encode_image(pixels), atol=1e-6
    )


@torch.inference_mode()
def test_the_autoencoder_decodes_the_mean_of_its_latents(autoencoder, tmp_path):
    peer = load_reconstructor(f"sd-vae:{tmp_path / 'vae'}", device=CPU)
    pixels = random_pixels()
    result = peer.reconstruct(pixels)
    latents = autoencoder.encode(pixels).latent_dist.mean
    # Convolutions round by where their tensors lie in memory: 1e-6 was seen on one processor.
    expected = autoencoder.decode(latents).sample.clamp(-1, 1)
    torch.testing.assert_close(result.pixels, expected, rtol=0, atol=1e-5)
    assert result.codes is None
    assert peer.codebook_size is None
    assert peer.image_size == 256
    assert peer.fingerprint == fingerprint(autoencoder.state_dict())
    with pytest.raises(ValueError, match=r"sides that are multiples of 8, got \(32, 36\)"):
        peer.reconstruct(torch.zeros(1, 3, 32, 36))


@torch.inference_mode()
def test_a_clip_has_the_features_and_the_preprocessing_of_open_clip(tmp_path):
    weights = save_tiny_clip(tmp_path)
    peer = load_feature_model(f"clip:{TINY}@{weights}", device=CPU)
    model, _, transform = open_clip.create_model_and_transforms(TINY, pretrained=str(weights))
    model.eval()
    pixels = transform(PICTURE)
    assert torch.equal(peer.prepare(PICTURE), pixels)
    images = model.encode_image(pixels[None])
    assert torch.equal(peer.probe_features(pixels[None]), images)
    assert torch.allclose(peer.encode_image(pixels[None]).norm(dim=-1), torch.ones(1))
    texts = model.encode_text(open_clip.get_tokenizer(TINY)(["a cat"]), normalize=True)
    assert torch.allclose(peer.encode_text(["a cat"]), texts, atol=1e-6)


def test_weights_trained_with_quick_gelu_get_it(tmp_path, monkeypatch):
    weights = save_tiny_clip(tmp_path)
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *names: {"quick_gelu": True})
    peer = load_feature_model(f"clip:{TINY}@{weights}", device=CPU)
    kinds = {type(module).__name__ for module in peer.model.modules()}
    assert "QuickGELU" in kinds
    assert "GELU" not in kinds


@pytest.mark.parametrize(
    ("load", "name", "error", "message"),
    [
        (load_reconstructor, "nano", ValueError, "a model is written unitok:NAME, sd-vae:NAME or"),
        (load_reconstructor, "unitok:", ValueError, "is written .* got 'unitok:'"),
        (load_reconstructor, f"clip:{TINY}@x", ValueError, "reconstructs no pictures; expected un"),
        (load_feature_model, "sd-vae:x", ValueError, "no features to classify by; expected unitok"),
        (load_feature_model, "clip:ViT-L-14", ValueError, "with its weights, such as ViT-L-14@op"),
        (load_feature_model, "clip:no@openai", ValueError, "no CLIP model is called 'no@openai'"),
        (load_feature_model, "clip:ViT-B-32@no", FileNotFoundError, "no usable weights of CLIP"),
        (load_feature_model, "clip:ViT-B-32@openai", FileNotFoundError, "Failed to download"),
        (load_feature_model, "clip:hf-hub:no/clip", FileNotFoundError, "hub"),
        (load_reconstructor, "sd-vae:no/vae", FileNotFoundError, "hub name of an AutoencoderKL"),
        (load_reconstructor, "unitok:no/model", FileNotFoundError, "no/model"),
    ],
)
def test_what_a_model_cannot_do_or_where_it_is_not_is_said(load, name, error, message):
    with pytest.raises(error, match=message):
        load(name, device=CPU)
