"""Tokenizers that are measured side by side, by the same code on the same pictures.

`KIND:WEIGHTS` names one on the command line:

- `unitok:nano`, or a folder or hub name of ours: reconstructs, and has features;
- `sd-vae:NAME`, Stable Diffusion's continuous autoencoder as diffusers has it: reconstructs;
- `clip:NAME@TAG`, `clip:NAME@FILE` or `clip:hf-hub:OWNER/NAME`, of open_clip: has features.

What reconstructs is a `Reconstructor`; what can classify pictures is a `FeatureModel`.

Shapes: B pictures, L visual tokens, K codebooks, E feature width.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mllm.image_tokenizer import load_tokenizer
from unitok.fingerprint import fingerprint
from unitok.hub import explain_download
from unitok.image import preprocess
from unitok.model import UniTok

VAE_SIZE = 256  # pixels: what the paper measures it at
VAE_FACTOR = 8  # pixels per latent and side
MAX_REASON = 200  # characters of a library's error


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What became of a batch of pictures."""

    pixels: Tensor  # (B, 3, H, W) in [-1, 1]
    codes: Tensor | None  # (B, L, K) int64; None: nothing is quantized


class Reconstructor(Protocol):
    """Pictures into a small form and back."""

    fingerprint: str  # of the weights
    image_size: int  # pixels per side that it is measured at unless told otherwise
    codebook_size: int | None  # None: nothing is quantized

    def reconstruct(self, pixels: Tensor) -> Reconstruction:
        """Of pixels (B, 3, H, W) in [-1, 1]."""
        ...


class FeatureModel(Protocol):
    """Pictures and texts into one feature space."""

    fingerprint: str

    def prepare(self, picture: Image.Image) -> Tensor:
        """A picture as the model takes it for classification, (3, H, W)."""
        ...

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Prepared pictures (B, 3, H, W) -> features (B, E) beside those of texts."""
        ...

    def probe_features(self, pixels: Tensor) -> Tensor:
        """Prepared pictures (B, 3, H, W) -> what a linear classifier learns from, (B, any)."""
        ...

    def encode_text(self, texts: list[str]) -> Tensor:
        """Texts -> features (B, E)."""
        ...


class UniTokPeer:
    """Ours."""

    def __init__(self, tokenizer: UniTok) -> None:
        self.tokenizer = tokenizer
        self.fingerprint = tokenizer.fingerprint
        self.image_size = tokenizer.config.image_size
        self.codebook_size: int | None = tokenizer.config.codebook_size

    def reconstruct(self, pixels: Tensor) -> Reconstruction:
        codes = self.tokenizer.encode(pixels.to(self.tokenizer.device))
        return Reconstruction(self.tokenizer.decode(codes, self.tokenizer.grid(pixels)), codes)

    def prepare(self, picture: Image.Image) -> Tensor:
        return preprocess(picture, "zero_shot", image_size=self.image_size)[0]

    def encode_image(self, pixels: Tensor) -> Tensor:
        return self.tokenizer.encode_image(pixels.to(self.tokenizer.device))

    def probe_features(self, pixels: Tensor) -> Tensor:
        """The mean of the tokens that the decoder sees, before CLIP's projection.

        So a tokenizer that never learned from texts can be probed as well.
        """
        return self.tokenizer.encode_tokens(pixels.to(self.tokenizer.device)).mean(dim=1)

    def encode_text(self, texts: list[str]) -> Tensor:
        return self.tokenizer.encode_text(texts)


class VaePeer:
    """diffusers' AutoencoderKL; the mean of its latents is decoded, so that runs are repeatable."""

    image_size = VAE_SIZE
    codebook_size: int | None = None

    def __init__(self, autoencoder: Any) -> None:
        self.autoencoder = autoencoder.eval()
        self.fingerprint = fingerprint(autoencoder.state_dict())

    @classmethod
    def from_pretrained(cls, name: str, *, device: torch.device, dtype: torch.dtype) -> "VaePeer":
        """Load a folder or hub name, safetensors only."""
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise RuntimeError("sd-vae needs the package: pip install diffusers") from error
        expected = (
            "expected a folder or hub name of an AutoencoderKL, such as stabilityai/sd-vae-ft-mse"
        )
        with explain_download(name, revision=None, expected=expected):
            try:
                loaded = AutoencoderKL.from_pretrained(
                    name, use_safetensors=True, torch_dtype=dtype
                )
            except OSError as error:
                if error.errno is not None:
                    raise  # this machine's, such as a full disk
                raise FileNotFoundError(f"no autoencoder called {name!r}; {expected}") from error
        return cls(loaded.to(device))

    def reconstruct(self, pixels: Tensor) -> Reconstruction:
        if any(side % VAE_FACTOR for side in pixels.shape[-2:]):
            raise ValueError(
                f"sd-vae takes sides that are multiples of {VAE_FACTOR}, got "
                f"{tuple(pixels.shape[-2:])}"
            )
        model = self.autoencoder
        latents = model.encode(pixels.to(model.device, model.dtype)).latent_dist.mode()
        return Reconstruction(model.decode(latents).sample.float().clamp(-1, 1), None)


class ClipPeer:
    """A CLIP model of open_clip with its own preprocessing."""

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Callable[[list[str]], Tensor],
        transform: Callable[[Image.Image], Tensor],
    ) -> None:
        self.model = model.eval()
        self.fingerprint = fingerprint(model.state_dict())
        self._tokenizer = tokenizer
        self._transform = transform
        self._device = next(model.parameters()).device

    @classmethod
    def from_pretrained(cls, name: str, *, device: torch.device) -> "ClipPeer":
        """Load NAME@TAG, NAME@FILE or hf-hub:OWNER/NAME."""
        import open_clip

        architecture, _, weights = name.partition("@")
        is_hub = architecture.startswith("hf-hub:")
        if not is_hub and (architecture not in open_clip.list_models() or not weights):
            raise ValueError(
                f"no CLIP model is called {name!r}; expected one of open_clip with its weights, "
                "such as ViT-L-14@openai, or hf-hub:OWNER/NAME"
            )
        settings = open_clip.get_pretrained_cfg(architecture, weights) if weights else {}
        expected = "expected a CLIP model of open_clip in the hub's cache, or on a reachable hub"
        with explain_download(name, revision=None, expected=expected):
            try:
                model, _, transform = open_clip.create_model_and_transforms(
                    architecture,
                    pretrained=weights or None,
                    device=device,
                    # Some weights were trained with it, and open_clip only warns of the other one.
                    force_quick_gelu=bool(settings.get("quick_gelu")),
                )
            except RuntimeError as error:
                reason = shorten(str(error), MAX_REASON)  # torch names every key
                raise FileNotFoundError(f"no usable weights of CLIP {name}: {reason}") from error
        return cls(model, tokenizer=open_clip.get_tokenizer(architecture), transform=transform)

    def prepare(self, picture: Image.Image) -> Tensor:
        return self._transform(picture)

    def encode_image(self, pixels: Tensor) -> Tensor:
        return F.normalize(self.model.encode_image(pixels.to(self._device)), dim=-1)

    def probe_features(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels.to(self._device))

    def encode_text(self, texts: list[str]) -> Tensor:
        return F.normalize(self.model.encode_text(self._tokenizer(texts).to(self._device)), dim=-1)


def load_reconstructor(
    name: str, *, device: torch.device, dtype: torch.dtype = torch.float32
) -> Reconstructor:
    """The tokenizer called `KIND:WEIGHTS`, if it can reconstruct."""
    kind, weights = _split_name(name)
    if kind == "unitok":
        return UniTokPeer(load_tokenizer(weights, device=device, dtype=dtype))
    if kind == "sd-vae":
        return VaePeer.from_pretrained(weights, device=device, dtype=dtype)
    raise ValueError(f"{name} reconstructs no pictures; expected unitok:... or sd-vae:...")


def load_feature_model(name: str, *, device: torch.device) -> FeatureModel:
    """The model called `KIND:WEIGHTS`, if it has features to classify by; in float32."""
    kind, weights = _split_name(name)
    if kind == "unitok":
        return UniTokPeer(load_tokenizer(weights, device=device))
    if kind == "clip":
        return ClipPeer.from_pretrained(weights, device=device)
    raise ValueError(f"{name} has no features to classify by; expected unitok:... or clip:...")


def official_precision(device: torch.device, *, use_autocast: bool) -> Any:
    """bfloat16 autocast, in which the published accuracies were measured, or none."""
    if not use_autocast:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def _split_name(name: str) -> tuple[str, str]:
    kind, _, weights = name.partition(":")
    if kind not in ("unitok", "sd-vae", "clip") or not weights:
        raise ValueError(
            f"a model is written unitok:NAME, sd-vae:NAME or clip:NAME@WEIGHTS, got {name!r}"
        )
    return kind, weights
