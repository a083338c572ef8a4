"""What a tokenizer training begins with, CLIP's weights above all."""

from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from train.tokenizer_start import (
    StartConfig,
    initial_model,
    load_tokenizer,
    read_clip,
    take_clip_weights,
)
from unitok.config import UniTokConfig
from unitok.model import UniTok


def test_every_weight_of_vitamin_large_that_has_a_counterpart_is_taken() -> None:
    """On the meta device: names and shapes of open_clip's ViTamin-L and of UniTok-Large."""
    with torch.device("meta"):
        clip = open_clip.create_model("ViTamin-L", device="meta")
        model = UniTok(UniTokConfig())
    report = take_clip_weights(model, clip.state_dict())
    left_out = {key.removeprefix("visual.") for key in report.left_out}
    assert left_out == {
        "logit_scale",
        "trunk.pos_embed",
        "trunk.fc_norm.weight",
        "trunk.fc_norm.bias",
        "head.proj.weight",
    }
    assert set(report.fresh) == {"encoder.pos_embed", "encoder.norm.weight", "encoder.norm.bias"}
    parts = [*model.encoder.parameters(), *model.text_encoder.parameters()]
    assert len(report.loaded) + len(report.fresh) == len(parts)


def test_clip_weights_from_a_file_reach_the_model_and_the_rest_stays(tmp_path: Path) -> None:
    config = build_tiny_tokenizer().config
    torch.manual_seed(1)
    source = UniTok(config)
    weights = source.encoder.blocks.state_dict(prefix="visual.trunk.blocks.")
    weights |= source.text_encoder.state_dict(prefix="text.")
    weights["visual.head.proj.weight"] = torch.zeros(2)
    save_file(weights, tmp_path / "clip.safetensors")
    torch.manual_seed(2)
    start = StartConfig(clip="tiny", clip_weights=str(tmp_path / "clip.safetensors"))
    model = initial_model(config, start)
    torch.manual_seed(2)
    untouched = UniTok(config)
    for name, value in model.state_dict().items():
        taken = name.startswith(("encoder.blocks.", "text_encoder."))
        expected = (source if taken else untouched).state_dict()[name]
        assert torch.equal(value, expected), name


def test_clip_weights_of_other_sizes_or_unknown_names_are_refused(tmp_path: Path) -> None:
    model = build_tiny_tokenizer()
    wrong = {"text.token_embedding.weight": torch.zeros(3, 3)}
    with pytest.raises(ValueError, match=r"do not fit the tokenizer: .*token_embedding.*\(3, 3\)"):
        take_clip_weights(model, wrong)
    with pytest.raises(ValueError, match="do not fit the tokenizer: no name is known"):
        take_clip_weights(model, {"other": torch.zeros(3)})
    with pytest.raises(ValueError, match=r"no weights 'laion' of 'ViTamin-L', only "):
        read_clip("ViTamin-L", "laion")


def test_clip_weights_that_cannot_be_fetched_say_what_to_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str, *, pretrained: str) -> None:
        raise RuntimeError(f"Failed to download weights for tag {pretrained!r}: no connection.")

    monkeypatch.setattr(open_clip, "create_model", fail)
    message = (
        r"no weights datacomp1b of ViTamin-L: Failed .*; name a \.safetensors file as init_from"
    )
    with pytest.raises(FileNotFoundError, match=message):
        read_clip("ViTamin-L", "datacomp1b")


def test_a_tokenizer_gives_its_weights_but_not_its_drop_path(tmp_path: Path) -> None:
    model = build_tiny_tokenizer()
    model.save_pretrained(tmp_path)
    config = UniTokConfig.from_dict({**model.config.to_dict(), "drop_path": 0.2})
    loaded = load_tokenizer(str(tmp_path), config)
    assert loaded.config.drop_path == 0.2
    assert torch.equal(loaded.projection.weight, model.projection.weight)
    other = UniTokConfig.from_dict({**model.config.to_dict(), "commitment_weight": 1, "width": 256})
    with pytest.raises(ValueError, match="a tokenizer of other sizes than"):
        load_tokenizer(str(tmp_path), other)


def test_a_start_from_two_models_or_half_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="a tokenizer or a clip, not both"):
        StartConfig(tokenizer="nano", clip="ViTamin-L", clip_weights="datacomp1b")
    with pytest.raises(ValueError, match="need each other"):
        StartConfig(clip="ViTamin-L")
