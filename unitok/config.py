"""Sizes of a UniTok tokenizer, and the three presets: nano, base, large."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unitok.files import read_json

PATCH_SIZE = 16  # pixels per visual token and side: four halvings in the conv backbone


@dataclass(frozen=True)
class UniTokConfig:
    """Everything that fixes the parameter shapes of a `UniTok`, stored as config.json.

    The defaults are the released UniTok-Large (arXiv 2502.20321).
    """

    image_size: int = 256  # pixels per side in training; other multiples of 16 work
    num_codebooks: int = 8  # K
    codebook_size: int = 4096  # V, entries of each codebook
    codebook_dim: int = 8  # width of one codebook entry; the latent has K times as much

    width: int = 1024  # of the ViT blocks, encoder and decoder alike
    depth: int = 31
    num_heads: int = 16
    conv_widths: tuple[int, int] = (160, 320)  # at 1/4 and 1/8 of the image side
    conv_depths: tuple[int, int] = (2, 4)
    decoder_expand_ratio: int = 4  # inner width of the decoder's inverted blocks
    drop_path: float = 0.0  # highest stochastic-depth rate, growing linearly with depth
    projection: Literal["attention", "linear"] = "attention"

    feature_dim: int = 768  # of the image and text features that CLIP aligns
    text_width: int = 768
    text_heads: int = 12
    text_layers: int = 12
    text_vocab_size: int = 49408
    text_context_length: int = 77

    commitment_weight: float = 0.25  # beta of the VQ loss

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and not _is_count(value):
                raise ValueError(f"{field.name} must be a positive integer, got {value!r}")
        self._check_pair("conv_widths")
        self._check_pair("conv_depths")
        self._check_multiple("image_size", PATCH_SIZE)
        self._check_multiple("width", self.num_heads)
        self._check_multiple("text_width", self.text_heads)
        if self.projection not in ("attention", "linear"):
            raise ValueError(f"projection must be attention or linear, got {self.projection!r}")
        if self.projection == "attention":
            self._check_multiple("width", self.latent_dim)
        if not (_is_number(self.drop_path) and 0 <= self.drop_path < 1):
            raise ValueError(f"drop_path must be from 0 to below 1, got {self.drop_path!r}")
        if not (_is_number(self.commitment_weight) and self.commitment_weight >= 0):
            raise ValueError(
                f"commitment_weight must be at least 0, got {self.commitment_weight!r}"
            )

    def _check_pair(self, name: str) -> None:
        # JSON has lists where the field is a tuple.
        value = getattr(self, name)
        pair = tuple(value) if isinstance(value, list | tuple) else ()
        if len(pair) != 2 or not all(_is_count(number) for number in pair):
            raise ValueError(f"{name} must be two positive integers, got {value!r}")
        object.__setattr__(self, name, pair)

    def _check_multiple(self, name: str, factor: int) -> None:
        value = getattr(self, name)
        if value % factor:
            raise ValueError(f"{name} must be a multiple of {factor}, got {value}")

    @property
    def latent_dim(self) -> int:
        """Width of the latent that the quantizer cuts into K slices."""
        return self.num_codebooks * self.codebook_dim

    @property
    def projection_heads(self) -> int:
        """Attention heads of both projections: each head is as wide as the latent."""
        return self.width // self.latent_dim

    @property
    def num_tokens(self) -> int:
        """Visual tokens L of a picture of the training size."""
        return (self.image_size // PATCH_SIZE) ** 2

    def to_dict(self) -> dict[str, Any]:
        return {"model_type": "unitok", **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "UniTokConfig":
        """Build a config from the content of a config.json; an unknown key is an error."""
        values = {key: value for key, value in values.items() if key != "model_type"}
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(
                f"unknown keys in the tokenizer's config: {', '.join(unknown)}; "
                f"expected only {', '.join(sorted(known))}"
            )
        return cls(**values)

    @classmethod
    def from_json(cls, path: str | Path) -> "UniTokConfig":
        return cls.from_dict(read_json(path))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


PRESETS = {
    "large": UniTokConfig(),
    "base": UniTokConfig(width=768, depth=14, num_heads=12, conv_widths=(128, 256)),
    # Trained on a CPU; must stay what the embedded weights have.
    "nano": UniTokConfig(
        image_size=64,
        codebook_size=256,
        width=192,
        depth=3,
        num_heads=6,
        conv_widths=(16, 48),
        conv_depths=(1, 2),
        decoder_expand_ratio=2,
        feature_dim=64,
        text_width=64,
        text_heads=2,
        text_layers=2,
        text_vocab_size=1024,
        text_context_length=48,
    ),
}
