"""What a tokenizer training begins with: fresh weights, a tokenizer's, or those of a CLIP model."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

import open_clip
import torch
from pydantic import model_validator
from torch import Tensor

from train.config import RunConfig
from unitok.checkpoint import load_weights
from unitok.config import UniTokConfig
from unitok.hub import explain_download
from unitok.model import UniTok

# Beginnings of a ViTamin CLIP's names in open_clip -> ours.
CLIP_PARTS = {
    "visual.trunk.patch_embed.backbone.": "encoder.backbone.",
    "visual.trunk.blocks.": "encoder.blocks.",
    "text.": "text_encoder.",
}

MAX_REASON = 200  # characters of a library's error

logger = logging.getLogger(__name__)


class StartConfig(RunConfig):
    """Weights to start from; without any, training is from scratch."""

    tokenizer: str | None = None  # `nano`, a folder or a hub name, of the same sizes
    clip: str | None = None  # name of a ViTamin CLIP in open_clip: encoder and text tower start so
    clip_weights: str | None = None  # open_clip's name of its weights, or a safetensors file

    @model_validator(mode="after")
    def _check_source(self) -> "StartConfig":
        if self.tokenizer is not None and self.clip is not None:
            raise ValueError("init_from takes a tokenizer or a clip, not both; leave one out")
        if (self.clip is None) != (self.clip_weights is None):
            raise ValueError("init_from.clip and init_from.clip_weights need each other; give both")
        return self


@dataclass(frozen=True)
class ClipReport:
    """Names of parameters, by what became of them."""

    loaded: tuple[str, ...]  # ours
    left_out: tuple[str, ...]  # the CLIP model's, which we have no place for
    fresh: tuple[str, ...]  # ours, of the encoder and the text tower, that stay as they were


def initial_model(config: UniTokConfig, start: StartConfig) -> UniTok:
    """The model as training begins; reports what was loaded."""
    if start.tokenizer is not None:
        return load_tokenizer(start.tokenizer, config)
    model = UniTok(config)
    if start.clip is not None:
        assert start.clip_weights is not None
        report = take_clip_weights(model, read_clip(start.clip, start.clip_weights))
        for name, keys in dataclasses.asdict(report).items():
            logger.info("%s: %d %s: %s", start.clip, len(keys), name, ", ".join(keys))
    return model


def load_tokenizer(name: str, config: UniTokConfig) -> UniTok:
    """A trained tokenizer in float32, with the other settings of `config`, whose sizes it has."""
    trained = UniTok.from_pretrained(name)
    same = dataclasses.replace(
        trained.config, drop_path=config.drop_path, commitment_weight=config.commitment_weight
    )
    if same != config:
        raise ValueError(
            f"init_from {name} is a tokenizer of other sizes than the model: {trained.config}; "
            f"expected {config}"
        )
    model = UniTok(config)
    model.load_state_dict(trained.state_dict())
    return model


def read_clip(name: str, weights: str) -> Mapping[str, Tensor]:
    """Weights of open_clip's model `name`: a safetensors file, or open_clip's name of them."""
    if Path(weights).suffix == ".safetensors":
        return load_weights(Path(weights))
    known = open_clip.list_pretrained_tags_by_model(name)
    if weights not in known:
        raise ValueError(
            f"open_clip has no weights {weights!r} of {name!r}, only {known or 'none'}; name one "
            "of these or a .safetensors file as init_from.clip_weights"
        )
    remedy = "name a .safetensors file as init_from.clip_weights"
    with explain_download(f"{name} ({weights})", revision=None, expected=remedy):
        try:
            return open_clip.create_model(name, pretrained=weights).state_dict()
        except RuntimeError as error:  # open_clip's own, around that of the hub
            reason = shorten(str(error), MAX_REASON)
            raise FileNotFoundError(
                f"no weights {weights} of {name}: {reason}; {remedy}"
            ) from error


@torch.no_grad()
def take_clip_weights(model: UniTok, weights: Mapping[str, Tensor]) -> ClipReport:
    """Put a CLIP model's weights into encoder and text tower.

    The CLIP model's position embedding and head are left out; our encoder's last norm, which it
    has not, stays fresh. Raises ValueError for a model of other sizes.
    """
    targets = {
        key: value
        for key, value in model.state_dict().items()
        if key.startswith(tuple(CLIP_PARTS.values()))
    }
    renamed = {_our_name(key): (key, value) for key, value in weights.items()}
    loaded = [key for key in targets if key in renamed]
    wrong = [key for key in loaded if renamed[key][1].shape != targets[key].shape]
    if wrong or not loaded:
        found = {key: tuple(renamed[key][1].shape) for key in wrong[:3]}
        raise ValueError(
            f"the CLIP weights do not fit the tokenizer: {found or 'no name is known'}, expected "
            f"{ {key: tuple(targets[key].shape) for key in wrong[:3]} or list(targets)[:3] }; "
            "choose a ViTamin of the tokenizer's sizes"
        )
    for key in loaded:
        targets[key].copy_(renamed[key][1])
    left_out = [key for ours, (key, _) in renamed.items() if ours not in targets]
    parts = model.encoder.state_dict(prefix="encoder.") | {
        key: value for key, value in targets.items() if key.startswith("text_encoder.")
    }
    fresh = [key for key in parts if key not in renamed]
    return ClipReport(tuple(loaded), tuple(left_out), tuple(fresh))


def _our_name(key: str) -> str:
    for theirs, ours in CLIP_PARTS.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
