import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unitok.conftest import TINY, random_pixels
from unitok.config import UniTokConfig
from unitok.model import NANO_FOLDER, WEIGHTS_FILE, UniTok

FROZEN = {"encoder.pos_embed"}


@pytest.fixture
def saved(tiny_model, tmp_path):
    """The folder of the tiny model."""
    tiny_model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_take_float32_pixels(saved, dtype):
    model, pixels = UniTok.from_pretrained(saved, dtype=dtype), random_pixels()
    assert {value.dtype for value in model.state_dict().values()} == {dtype}
    codes = model.encode(pixels)
    assert codes.shape == (2, 16, TINY.num_codebooks)
    for value in (model.decode(codes), model.encode_image(pixels), model.encode_text(["a star"])):
        assert value.dtype == dtype
        assert value.isfinite().all()


def test_a_saved_model_loads_with_the_same_output_and_fingerprint(tiny_model, saved):
    loaded = UniTok.from_pretrained(saved)
    pixels, texts = random_pixels(), ["a red circle"]
    assert loaded.config == tiny_model.config
    assert loaded.fingerprint == tiny_model.fingerprint
    assert not loaded.training
    codes = tiny_model.encode(pixels)
    assert torch.equal(loaded.encode(pixels), codes)
    assert torch.equal(loaded.decode(codes), tiny_model.decode(codes))
    assert torch.equal(loaded.encode_image(pixels), tiny_model.encode_image(pixels))
    assert torch.equal(loaded.encode_text(texts), tiny_model.encode_text(texts))


def test_a_loaded_model_can_be_trained_and_saved_again(saved):
    model = UniTok.from_pretrained(saved).train()
    before = model.fingerprint
    assert {n for n, p in model.named_parameters() if not p.requires_grad} == FROZEN
    output = model(random_pixels(), model.tokenize(["a star"] * 2))
    (output.reconstruction.square().mean() + output.text_features.sum()).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert model.fingerprint != before
    assert UniTok.from_pretrained(saved).fingerprint == before
    model.save_pretrained(saved)
    assert UniTok.from_pretrained(saved).fingerprint == model.fingerprint


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_fingerprint_stays_when_loaded_in_half_precision(tiny_model, saved, dtype):
    loaded = UniTok.from_pretrained(saved, dtype=dtype)
    assert loaded.dtype == dtype
    assert loaded.fingerprint == tiny_model.fingerprint


def test_weights_stored_in_bfloat16_keep_their_fingerprint(tiny_model, tmp_path):
    name = tiny_model.fingerprint
    tiny_model.to(torch.bfloat16).save_pretrained(tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    assert UniTok.from_pretrained(tmp_path).fingerprint == name


def test_a_model_in_channels_last_order_saves_the_same_file(tiny_model, saved, tmp_path):
    tiny_model.to(memory_format=torch.channels_last).save_pretrained(tmp_path / "other")
    files = [folder / WEIGHTS_FILE for folder in (saved, tmp_path / "other")]
    assert files[0].read_bytes() == files[1].read_bytes()


def edit_weights(folder, edit) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    edit(weights)
    save_file(weights, folder / WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda weights: weights.pop("fc_norm.bias"), "missing fc_norm.bias"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown extra"),
        (
            lambda weights: weights.update({"fc_norm.bias": torch.zeros(3)}),
            r"fc_norm.bias is \(3,\), expected \(32,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(saved, edit, message):
    edit_weights(saved, edit)
    with pytest.raises(ValueError, match=f"model.safetensors do not fit the config: {message}"):
        UniTok.from_pretrained(saved)


def test_many_problems_are_cut_short(saved):
    edit_weights(saved, lambda weights: [weights.pop(key) for key in list(weights)[:9]])
    with pytest.raises(ValueError, match="and 4 more; expected those that belong to it"):
        UniTok.from_pretrained(saved)


@pytest.mark.parametrize("num_bytes", [0, 5, 100, -1000])
def test_a_damaged_weights_file_is_refused_in_one_sentence(saved, num_bytes):
    file = saved / WEIGHTS_FILE
    file.write_bytes(file.read_bytes()[:num_bytes])
    with pytest.raises(ValueError, match="is no safetensors file, or a damaged one") as caught:
        UniTok.from_pretrained(saved)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_weights_are_named(saved):
    (saved / WEIGHTS_FILE).unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights at .*model.safetensors"):
        UniTok.from_pretrained(saved)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "\udcff"])
def test_a_damaged_config_is_refused_in_one_sentence(saved, text):
    (saved / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(
        ValueError, match=r"config.json (is no JSON file|must hold one JSON object)"
    ):
        UniTok.from_pretrained(saved)


def test_the_saved_config_names_its_type_and_every_field(saved):
    stored = json.loads((saved / "config.json").read_text())
    assert stored.pop("model_type") == "unitok"
    assert set(stored) == {field.name for field in dataclasses.fields(UniTokConfig)}


def test_push_to_hub_uploads_the_saved_folder(tiny_model, monkeypatch):
    uploaded = {}

    class Api:
        def create_repo(self, repo_id, *, private, exist_ok):
            uploaded["repo"] = (repo_id, private, exist_ok)

        def upload_folder(self, *, folder_path, repo_id):
            uploaded["model"] = UniTok.from_pretrained(folder_path)
            commit = type("Commit", (), {"commit_url": f"https://example.org/{repo_id}"})
            return commit()

    monkeypatch.setattr("unitok.hub.HfApi", Api)
    address = tiny_model.push_to_hub("someone/tiny", private=True)
    assert address == "https://example.org/someone/tiny"
    assert uploaded["repo"] == ("someone/tiny", True, True)
    assert uploaded["model"].fingerprint == tiny_model.fingerprint


@pytest.mark.skipif(
    not (NANO_FOLDER / WEIGHTS_FILE).is_file(), reason="the embedded weights are not there yet"
)
def test_the_embedded_tokenizer_is_the_default():
    model = UniTok.from_pretrained()
    pixels = random_pixels(1, 64, 64)
    assert model.decode(model.encode(pixels)).shape == pixels.shape
