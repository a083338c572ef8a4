"""The tokenizer gives the official implementation's numbers (fp32, CPU).

Both reference models take the way of a released checkpoint: a .pth in the official layout,
converted. One test per model, because building one takes seconds.
"""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.reference_weights import GOLDENS, fill, load_layout
from unitok.convert import convert_checkpoint
from unitok.model import UniTok

INPUTS = {"image", "text"}
STRIDE = 4  # reference pictures hold every fourth pixel in each direction
TIE = 1e-5  # below this difference of similarity two entries may change places
# Field -> largest allowed difference. The measured ones, of both models: 6.6e-6 features,
# 3.8e-6 reconstruction, 6.8e-6 img_rec, 6.0e-8 clip_image_features, 3.7e-9 vq_loss, and 0 in all
# the others. A wrong GELU flavour shows as 6.8e-4 in the reconstruction.
LIMITS = {
    "features_before_quant": 3e-5,
    "reconstruction": 1e-4,
    "image_features": 3e-5,
    "text_features": 3e-5,
    "logit_scale": 1e-6,
    "forward.vq_loss": 1e-6,
    "forward.usage": 1e-5,
    "forward.clip_image_features": 3e-5,
    "forward.img_rec": 1e-4,
}


def read_reference(name: str) -> tuple[dict, dict[str, Tensor]]:
    """Official settings, and the official inputs and outputs."""
    with safe_open(GOLDENS / "unitok" / f"{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        return json.loads(file.metadata()["args"]), tensors


def write_release(name: str, path: Path) -> Path:
    """A reference model as the authors publish theirs."""
    args, _ = read_reference(name)
    weights = fill(load_layout(f"unitok/{name}_layout.json"))
    torch.save({"args": args, "trainer": {"unitok": weights}}, path)
    return path


@torch.inference_mode()
def compute_fields(model: UniTok, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our values of all reference outputs, in their shapes."""
    latents = []
    model.quant_proj.register_forward_hook(lambda _, __, output: latents.append(output))
    pixels = expected["image"].float() / 127.5 - 1
    output = model(pixels, expected["text"])
    decoded = model.decode(expected["codes"].long().transpose(1, 2))
    return {
        "features_before_quant": latents[0],
        "codes": output.codes.transpose(1, 2).to(expected["codes"].dtype),
        "reconstruction": decoded[..., ::STRIDE, ::STRIDE],
        "image_features": model.encode_image(pixels),
        "text_features": model.encode_text(expected["text"]),
        "logit_scale": output.logit_scale[None],
        "forward.vq_loss": output.vq_loss[None],
        "forward.usage": output.usage[None],
        "forward.clip_image_features": output.image_features,
        "forward.img_rec": output.reconstruction[..., ::STRIDE, ::STRIDE],
    }


def similarity(model: UniTok, latents: Tensor, codes: Tensor) -> Tensor:
    """Cosines of latents (B, L, C) with the entries of official codes (B, K, L): (B, L, K)."""
    entries = model.quantizer.lookup(codes.long().transpose(1, 2))
    slices = (-1, (model.config.num_codebooks, -1))
    return torch.cosine_similarity(latents.unflatten(*slices), entries.unflatten(*slices), dim=-1)


@pytest.mark.parametrize("name", ["tokenizer_dev", "tokenizer_dev_mini"])
def test_every_field_of_a_reference_model_matches_the_official_one(name, tmp_path):
    checkpoint = write_release(name, tmp_path / "unitok_tokenizer.pth")
    model = convert_checkpoint(checkpoint)
    checkpoint.unlink()  # 800 MB; the model keeps its mapping
    _, expected = read_reference(name)
    fields = compute_fields(model, expected)
    assert set(fields) == set(expected) - INPUTS
    codes = fields.pop("codes")
    differences = {key: (value - expected[key]).abs().max().item() for key, value in fields.items()}
    assert {key: value.shape for key, value in fields.items()} == {
        key: expected[key].shape for key in LIMITS
    }
    assert {key: value for key, value in differences.items() if value > LIMITS[key]} == {}
    # No sub-code differed when measured; at a tie it may.
    with torch.inference_mode():
        latents = fields["features_before_quant"]
        lost = similarity(model, latents, codes) - similarity(model, latents, expected["codes"])
    assert lost.abs().max() < TIE
