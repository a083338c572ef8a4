"""The Inception network of 2015 behind FID and the Inception Score, as torch-fidelity ports it.

torch-fidelity supplies the layers and the weights, which clean-fid's TorchScript file holds as
well. Resizing is left to `eval/fid_resize.py`, because the benchmarks differ in it.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from eval.fid_resize import INCEPTION_SIZE
from eval.released_weights import ReleasedWeights

_NAME = "weights-inception-2015-12-05-6726825d.pth"
WEIGHTS = ReleasedWeights(
    network="Inception",
    file_name=_NAME,
    sha256="6726825d",
    source=f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_NAME}",
    option="--inception",
)
NETWORK_NAME = "inception-v3-compat"


@dataclass(frozen=True, eq=False)
class Extracted:
    """What a network says about B pictures."""

    features: Tensor  # (B, D) float32; D is 2048 for Inception
    logits: Tensor  # (B, C) float32, without the last layer's bias


class FeatureExtractor(Protocol):
    """A network that FID compares pictures by; its name and hash stand beside every score."""

    name: str
    sha256: str  # of its weights

    def extract(self, pixels: Tensor) -> Extracted:
        """Of float32 pixels (B, 3, 299, 299) in 0..255."""
        ...


class Inception:
    """torch-fidelity's network, in float32 on any device."""

    name = NETWORK_NAME

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        sha256: str,
        device: str | torch.device = "cpu",
    ) -> None:
        self.sha256 = sha256
        self.network = build_network(weights).to(device)
        self.device = torch.device(device)

    @classmethod
    def from_file(
        cls, path: Path | None = None, *, device: str | torch.device, option: str = WEIGHTS.option
    ) -> "Inception":
        """Load the released weights at `path`; None: where torch-fidelity keeps its download.

        `option` is where the user can name the file.
        """
        released = replace(WEIGHTS, option=option)
        path = path or released.default_path
        sha256 = released.check(path)
        return cls(released.read(path), sha256=sha256, device=device)

    @torch.inference_mode()
    def extract(self, pixels: Tensor) -> Extracted:
        """Of float32 pixels (B, 3, 299, 299) in 0..255."""
        side = INCEPTION_SIZE
        if pixels.shape[1:] != (3, side, side) or pixels.dtype != torch.float32:
            raise ValueError(
                f"pixels must be float32 (B, 3, {side}, {side}), got {pixels.dtype} "
                f"{tuple(pixels.shape)}; resize them first"
            )
        values = (pixels.to(self.device) - 128) / 128
        # TF32 would change the features in the third digit.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            for name, layer in self.network.named_children():
                if name != "fc":
                    values = layer(values)
        features = values.flatten(1)
        return Extracted(features, features @ self.network.fc.weight.T)


def build_network(weights: Mapping[str, Tensor]) -> Any:
    """torch-fidelity's layers in eval mode, with these weights and no others."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import (
            FeatureExtractorInceptionV3,
        )
    except ImportError as error:
        raise RuntimeError(
            "the Inception network comes with torch-fidelity; run pip install torch-fidelity==0.4.0"
        ) from error
    # The class reads its weights by unpickling a file: it gets one that was written right here.
    file = io.BytesIO()
    torch.save(dict(weights), file)
    file.seek(0)
    return FeatureExtractorInceptionV3(
        NETWORK_NAME, ["2048", "logits_unbiased"], feature_extractor_weights_path=file
    )
