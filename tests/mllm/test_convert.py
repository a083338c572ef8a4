import json

import pytest
import torch
from safetensors.torch import save_file

from mllm.convert import (
    convert_checkpoint,
    convert_config,
    convert_key,
    convert_state_dict,
    official_layout,
    read_codebooks,
)
from mllm.model import UniTokMLLM
from tests.mllm.conftest import load_reference_settings
from tests.reference_weights import load_layout

LLAMA_2_7B = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def write_release(folder, weights, *, num_shards=1, suffix="safetensors") -> None:
    """A folder as the authors publish it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(load_reference_settings()))
    name = {"safetensors": "model.safetensors", "bin": "pytorch_model.bin"}[suffix]
    keys = list(weights)
    weight_map = {}
    for number in range(num_shards):
        shard = {key: weights[key] for key in keys[number::num_shards]}
        file = name if num_shards == 1 else f"shard-{number}.{suffix}"
        save = save_file if suffix == "safetensors" else torch.save
        save(shard, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    if num_shards > 1:
        (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_the_released_7b_layout_is_understood_completely():
    layout = {
        key: tuple(shape) for key, (shape, _) in load_layout("mllm/mllm_7b_layout.json").items()
    }
    config = convert_config(LLAMA_2_7B, layout)
    assert (config.num_codebooks, config.codebook_size, config.codebook_dim) == (8, 4096, 8)
    assert (config.projection_dim, config.head_layers, config.image_token_id) == (1024, 3, 32000)
    assert config.text_config.rms_norm_eps == 1e-5
    assert config.text_config.pad_token_id == 0
    assert official_layout(config) == layout


@pytest.mark.parametrize(
    ("num_shards", "suffix"), [(1, "safetensors"), (3, "safetensors"), (2, "bin")]
)
def test_a_converted_folder_loads_with_the_same_numbers(
    official_weights, reference_model, tmp_path, num_shards, suffix
):
    write_release(tmp_path / "official", official_weights, num_shards=num_shards, suffix=suffix)
    convert_checkpoint(
        tmp_path / "official",
        tmp_path / "ours",
        grid=(4, 4),
        tokenizer_fingerprint="0123456789abcdef",
    )
    model = UniTokMLLM.from_pretrained(tmp_path / "ours")
    assert model.config.tokenizer_fingerprint == "0123456789abcdef"
    assert model.generation_config.eos_token_id == 2
    expected = reference_model.state_dict()
    assert model.state_dict().keys() == expected.keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected[key]), key


def test_numbers_can_be_stored_in_another_type(official_weights, tmp_path):
    write_release(tmp_path / "official", official_weights)
    config = convert_checkpoint(
        tmp_path / "official", tmp_path / "ours", grid=(4, 4), dtype=torch.bfloat16
    )
    assert config.dtype == torch.bfloat16
    assert UniTokMLLM.from_pretrained(tmp_path / "ours").dtype == torch.bfloat16


def test_converting_keys_twice_changes_nothing(official_weights):
    once = convert_state_dict(official_weights)
    assert convert_state_dict(once).keys() == once.keys()


def test_unknown_keys_pass_through():
    assert convert_key("vision_tower.weight") == "vision_tower.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "missing lm_head.weight"),
        (
            lambda weights: weights.pop("ar_head.codebooks.6.weight"),
            "missing ar_head.codebooks.6.weight",
        ),
        (
            lambda weights: weights.pop("model.multi_embedder.attn_projection.proj.weight"),
            "missing model.multi_embedder.attn_projection.proj.weight",
        ),
        (
            lambda weights: weights.update({"model.extra.weight": torch.zeros(1)}),
            "unknown model.extra.weight",
        ),
        (
            lambda weights: weights.update({"lm_head.weight": torch.zeros(320, 64)}),
            r"lm_head.weight is \(320, 64\), expected \(320, 128\)",
        ),
    ],
)
def test_weights_that_are_not_those_released_are_named(official_weights, tmp_path, change, message):
    weights = dict(official_weights)
    change(weights)
    write_release(tmp_path / "official", weights)
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "official", tmp_path / "ours", grid=(4, 4))
    assert not (tmp_path / "ours").exists()


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no released weights in"):
        convert_checkpoint(tmp_path, tmp_path / "ours")


def test_an_incomplete_download_is_refused(official_weights, tmp_path):
    write_release(tmp_path / "official", official_weights, num_shards=2)
    (tmp_path / "official" / "shard-1.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks shard-1\.safetensors; download it again"):
        convert_checkpoint(tmp_path / "official", tmp_path / "ours")


def test_released_files_are_never_replaced(official_weights, tmp_path):
    folder = tmp_path / "official"
    write_release(folder, official_weights)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ValueError, match=r"cannot convert .* into itself"):
        convert_checkpoint(folder, tmp_path / "x" / ".." / "official", grid=(4, 4), force=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_model_is_not_overwritten_by_accident(official_weights, tmp_path):
    write_release(tmp_path / "official", official_weights)
    convert_checkpoint(tmp_path / "official", tmp_path / "ours", grid=(4, 4))
    with pytest.raises(FileExistsError, match="pass --force to overwrite it"):
        convert_checkpoint(tmp_path / "official", tmp_path / "ours", grid=(4, 4))


def test_force_leaves_nothing_of_the_model_before(official_weights, reference_model, tmp_path):
    stale = {key: torch.zeros_like(value) for key, value in official_weights.items()}
    write_release(tmp_path / "stale", stale)
    write_release(tmp_path / "official", official_weights, num_shards=2)
    convert_checkpoint(tmp_path / "stale", tmp_path / "ours", grid=(4, 4))
    convert_checkpoint(tmp_path / "official", tmp_path / "ours", grid=(4, 4), force=True)
    # transformers would prefer a single file to shards.
    model = UniTokMLLM.from_pretrained(tmp_path / "ours")
    assert torch.equal(model.lm_head.weight, reference_model.lm_head.weight)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_damaged_weights_file_is_named(official_weights, tmp_path, suffix):
    write_release(tmp_path / "official", official_weights, suffix=suffix)
    path = next((tmp_path / "official").glob(f"*.{suffix}"))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"{path.name} .*download it again"):
        convert_checkpoint(tmp_path / "official", tmp_path / "ours", grid=(4, 4))


def test_an_index_that_names_nothing_is_refused(official_weights, tmp_path):
    write_release(tmp_path / "official", official_weights)
    (tmp_path / "official" / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json names no weight files"):
        convert_checkpoint(tmp_path / "official", tmp_path / "ours", grid=(4, 4))


@pytest.mark.parametrize(("num_shards", "suffix"), [(3, "safetensors"), (2, "bin")])
def test_codebooks_are_read_wherever_they_stand(
    official_weights, reference_model, tmp_path, num_shards, suffix
):
    write_release(tmp_path / "official", official_weights, num_shards=num_shards, suffix=suffix)
    expected = reference_model.visual_embedder.quantizer.codebooks_KVD
    assert torch.equal(read_codebooks(tmp_path / "official"), expected)


def test_settings_without_sizes_are_refused():
    with pytest.raises(ValueError, match=r"config\.json lacks intermediate_size, num_hidden"):
        convert_config({"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9}, {})
