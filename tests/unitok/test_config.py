import dataclasses
import json

import pytest

import unitok
from unitok.config import PRESETS, UniTokConfig


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(PRESETS[name].to_dict()))
    assert UniTokConfig.from_json(path) == PRESETS[name]


def test_the_presets_have_the_published_sizes():
    large, base, nano = PRESETS["large"], PRESETS["base"], PRESETS["nano"]
    assert (large.num_tokens, large.num_codebooks, large.codebook_size) == (256, 8, 4096)
    assert (large.latent_dim, large.projection_heads, large.depth) == (64, 16, 31)
    assert (base.latent_dim, base.projection_heads, base.depth) == (64, 12, 14)
    assert nano.num_tokens < base.num_tokens


def test_unknown_keys_are_refused_by_name():
    with pytest.raises(
        ValueError, match="unknown keys in the tokenizer's config: color, size; exp"
    ):
        UniTokConfig.from_dict({"size": 3, "color": "red"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 100}, "image_size must be a multiple of 16, got 100"),
        ({"image_size": 0}, "image_size must be a positive integer, got 0"),
        ({"num_codebooks": 0}, "num_codebooks must be a positive integer, got 0"),
        ({"depth": -1}, "depth must be a positive integer, got -1"),
        ({"depth": True}, "depth must be a positive integer, got True"),
        ({"width": "1024"}, "width must be a positive integer, got '1024'"),
        ({"width": 1024.0}, "width must be a positive integer, got 1024.0"),
        ({"num_heads": 7}, "width must be a multiple of 7, got 1024"),
        ({"text_heads": 7}, "text_width must be a multiple of 7, got 768"),
        ({"num_codebooks": 5}, "width must be a multiple of 40, got 1024"),
        ({"conv_widths": (160,)}, r"conv_widths must be two positive integers, got \(160,\)"),
        ({"conv_depths": [2, 0]}, r"conv_depths must be two positive integers, got \[2, 0\]"),
        ({"conv_depths": 3}, "conv_depths must be two positive integers, got 3"),
        ({"projection": "pool"}, "projection must be attention or linear, got 'pool'"),
        ({"drop_path": 1.0}, "drop_path must be from 0 to below 1, got 1.0"),
        ({"commitment_weight": -1.0}, "commitment_weight must be at least 0, got -1.0"),
    ],
)
def test_bad_values_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        UniTokConfig.from_dict(changes)


def test_a_linear_projection_takes_any_latent_width():
    config = dataclasses.replace(PRESETS["large"], num_codebooks=5, projection="linear")
    assert config.latent_dim == 40


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PRESETS["large"].width = 3


def test_the_package_offers_its_public_names():
    for name in ("UniTok", "UniTokConfig", "load_image", "preprocess", "to_pil"):
        assert callable(getattr(unitok, name))
        assert name in unitok.__all__
    assert not hasattr(unitok, "anything_else")
