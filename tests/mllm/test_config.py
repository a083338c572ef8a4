import json

import pytest
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassFieldValidationError,
)
from transformers import AutoConfig, BertConfig, LlamaConfig

from mllm.config import UniTokMLLMConfig
from tests.mllm.conftest import build_tiny_config


def test_the_defaults_are_the_released_model():
    config = UniTokMLLMConfig()
    assert (config.text_config.hidden_size, config.text_config.num_hidden_layers) == (4096, 32)
    assert config.text_config.rms_norm_eps == 1e-5
    assert (config.num_codebooks, config.codebook_size, config.grid) == (8, 4096, (16, 16))
    assert config.image_token_id == 32000
    assert config.num_visual_tokens == 256


def test_a_saved_config_loads_as_it_was(tmp_path):
    config = build_tiny_config(tokenizer_fingerprint="0123456789abcdef", image_recipe="crop")
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, UniTokMLLMConfig)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "unitok_mllm"


# Checks of ours are ValueErrors, which `@strict` wraps into its own class with their sentence.
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_codebooks": 0}, "num_codebooks must be at least 1, got 0"),
        ({"grid": (4, 4, 4)}, r"grid must be \(rows, columns\) of at least 1"),
        ({"grid": (0, 4)}, r"grid must be \(rows, columns\) of at least 1"),
        ({"projection_dim": 30}, "projection_dim must be a multiple of projection_heads=4"),
        ({"projection_dim": 8}, "at least num_codebooks . codebook_dim = 16, got 8"),
        ({"boi_token_id": 40}, "boi_token_id must be in the vocabulary of 40, got 40"),
        ({"eoi_token_id": 3}, "boi_token_id and eoi_token_id must differ, got 3"),
        ({"image_token_id": 39}, "image_token_id must be outside the vocabulary of 40, got 39"),
        (
            {"text_config": LlamaConfig(tie_word_embeddings=True)},
            "tie_word_embeddings must be false",
        ),
    ],
)
def test_values_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(StrictDataclassClassValidationError, match=f"ValueError: .*{message}"):
        build_tiny_config(**changes)


def test_values_of_a_wrong_type_are_refused():
    message = "'num_codebooks' expected int, got str .*'eight'"
    with pytest.raises(StrictDataclassFieldValidationError, match=message):
        build_tiny_config(num_codebooks="eight")


def test_another_decoder_than_llama_is_refused():
    message = "text_config must describe a llama model, got BertConfig"
    with pytest.raises(ValueError, match=message):
        build_tiny_config(text_config=BertConfig())
