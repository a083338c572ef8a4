import os
import pickle

import pytest
import torch
from torch import Tensor

from tests.reference_weights import load_layout
from tests.unitok.test_parity import read_reference
from unitok.checkpoint import check_keys
from unitok.config import PRESETS
from unitok.convert import convert_checkpoint, convert_config, convert_state_dict, official_layout
from unitok.model import UniTok

LARGE_ARGS = {
    "num_query": 0,
    "model": "vitamin_large",
    "img_size": 256,
    "drop_path": 0.0,
    "quant_proj": "attn",
    "vocab_width": 64,
    "vocab_size": 32768,
    "vq_beta": 0.25,
    "num_codebooks": 8,
    "text_width": 768,
    "text_heads": 12,
    "text_layers": 12,
    "text_vocab_size": 49408,
    "text_context_length": 77,
    "embed_dim": 768,
}


def empty_weights(name: str) -> dict[str, Tensor]:
    """Tensors of an official layout that share a single number: no memory, small files."""
    layout = load_layout(f"unitok/{name}_layout.json")
    return {key: torch.zeros(()).expand(shape) for key, (shape, _) in layout.items()}


@pytest.fixture(scope="module")
def large_weights() -> dict[str, Tensor]:
    return empty_weights("tokenizer_large")


@pytest.fixture(scope="module")
def large_layout() -> dict[str, Tensor]:
    return official_layout(convert_config(LARGE_ARGS))


def test_the_released_settings_are_the_large_preset():
    assert convert_config(LARGE_ARGS) == PRESETS["large"]


def test_the_released_layout_is_understood_completely(large_weights, large_layout):
    assert {key: value.shape for key, value in large_layout.items()} == {
        key: value.shape for key, value in large_weights.items()
    }


def test_the_converted_layout_is_exactly_that_of_the_model(large_layout):
    with torch.device("meta"):
        model = UniTok(PRESETS["large"])
    ours = convert_state_dict(large_layout)
    assert model.load_state_dict(ours, strict=True, assign=True)
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


def test_the_smaller_references_are_understood_completely():
    for name in ("tokenizer_dev", "tokenizer_dev_mini"):
        args, _ = read_reference(name)
        check_keys(empty_weights(name), official_layout(convert_config(args)), source=name)


def test_a_checkpoint_of_the_released_size_converts_strictly(large_weights, tmp_path):
    path = tmp_path / "unitok_tokenizer.pth"
    torch.save({"args": LARGE_ARGS, "trainer": {"unitok": large_weights, "epoch": 1}}, path)
    model = convert_checkpoint(path)
    assert model.config == PRESETS["large"]
    assert not model.training
    assert sum(param.numel() for param in model.parameters()) > 8e8
    assert not any(value.is_meta for value in (*model.parameters(), *model.buffers()))


def test_half_precision_tensors_become_float32(large_weights, tmp_path):
    weights = large_weights | {"fc_norm.bias": large_weights["fc_norm.bias"].half()}
    torch.save({"args": LARGE_ARGS, "trainer": {"unitok": weights}}, tmp_path / "half.pth")
    state = convert_checkpoint(tmp_path / "half.pth").state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda weights: weights.pop("fc_norm.bias"), "missing fc_norm.bias;"),
        (
            lambda weights: weights.pop("quantizer.codebooks.3.codebook.weight"),
            "missing quantizer.codebooks.3.codebook.weight;",
        ),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown extra;"),
        (
            lambda weights: weights.update(
                {"quantizer.codebooks.8.vocab_usage": weights["quantizer.codebooks.0.vocab_usage"]}
            ),
            "unknown quantizer.codebooks.8.vocab_usage;",
        ),
        (
            lambda weights: weights.update(
                {"quantizer.codebooks.3.codebook.weight": torch.zeros(4096, 4)}
            ),
            r"quantizer.codebooks.3.codebook.weight is \(4096, 4\), expected \(4096, 8\);",
        ),
        (
            lambda weights: weights.update({"fc_norm.bias": torch.zeros(3)}),
            r"fc_norm.bias is \(3,\), expected \(1024,\);",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(large_weights, tmp_path, edit, message):
    weights, path = dict(large_weights), tmp_path / "edited.pth"
    edit(weights)
    torch.save({"args": LARGE_ARGS, "trainer": {"unitok": weights}}, path)
    with pytest.raises(ValueError, match=f"edited.pth do not fit the config: {message}"):
        convert_checkpoint(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": "resnet50"},
            "cannot convert model='resnet50'; expected one of vitamin_large, v",
        ),
        ({"num_query": 3}, "cannot convert num_query=3; expected 0"),
        ({"quant_proj": "pool"}, "cannot convert quant_proj='pool'; expected one of attn, linear"),
        ({"vocab_size": 32767}, "vocab_size=32767: expected a multiple of num_codebooks=8"),
        ({"num_codebooks": 0}, "num_codebooks=0; expected a positive integer"),
        ({"img_size": "wide"}, "cannot convert img_size='wide'; expected a positive integer"),
    ],
)
def test_settings_without_a_counterpart_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        convert_config(LARGE_ARGS | changes)


def test_missing_settings_are_named():
    args = {key: value for key, value in LARGE_ARGS.items() if key not in ("model", "text_width")}
    with pytest.raises(ValueError, match="args lack model, text_width"):
        convert_config(args)


def test_the_linear_variant_has_a_layout_without_attention():
    layout = official_layout(convert_config(LARGE_ARGS | {"quant_proj": "linear"}))
    projection = {key for key in layout if key.startswith("quant_proj.")}
    assert projection == {"quant_proj.weight", "quant_proj.bias"}


@pytest.mark.parametrize(
    "content",
    [
        {"args": LARGE_ARGS},
        {"trainer": {"unitok": {}}},
        {"args": LARGE_ARGS, "trainer": {"vae": {}}},
        {"args": None, "trainer": {"unitok": {}}},
        {"args": LARGE_ARGS, "trainer": {"unitok": {"fc_norm.bias": 3}}},
        {"args": LARGE_ARGS, "trainer": {"unitok": [1]}},
        {"fc_norm.bias": torch.zeros(3)},
        [1, 2],
        torch.zeros(3),
    ],
)
def test_another_checkpoint_is_refused_in_one_sentence(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    message = "other.pth is no released UniTok checkpoint: expected the entries args, .* of tensors"
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize("size", [0, 10, 1000, -100])
def test_a_truncated_checkpoint_is_refused_in_one_sentence(tmp_path, size):
    path = tmp_path / "cut.pth"
    torch.save({"args": LARGE_ARGS, "trainer": {"unitok": {"a": torch.zeros(1000)}}}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(
        ValueError, match=r"cut.pth is no checkpoint .*: it is no whole torch archive;"
    ):
        convert_checkpoint(path)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder) -> None:
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_checkpoint_with_code_is_refused_and_the_code_not_run(tmp_path, is_archive):
    path, trap = tmp_path / "trap.pth", Trap(tmp_path / "sprung")
    content = {"args": trap, "trainer": {"unitok": {}}}
    if is_archive:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    reason = "holds more than plain values" if is_archive else "is no whole torch archive"
    with pytest.raises(ValueError, match=f"trap.pth is no checkpoint .*: it {reason};") as caught:
        convert_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["nothing.pth", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*expected a released"):
        convert_checkpoint(tmp_path / name)
