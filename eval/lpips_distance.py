"""LPIPS (Zhang et al., arXiv 1801.03924), as its package `lpips` computes it on AlexNet.

The package brings the learned weights of the distance along, but downloads AlexNet's own from
torchvision: here they are a file like Inception's, checked by its hash. Training compares on VGG;
the package recommends AlexNet for measuring.
"""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from eval.precision import full_precision
from eval.released_weights import ReleasedWeights

NETWORK = "alex"
VERSION = "0.1"
_NAME = "alexnet-owt-7be5be79.pth"
WEIGHTS = ReleasedWeights(
    network="AlexNet",
    file_name=_NAME,
    sha256="7be5be79",
    source=f"https://download.pytorch.org/models/{_NAME}",
    option="--alexnet",
)
MIN_SIZE = 32  # pixels: below, the last layers of AlexNet have nothing left to see


class LpipsDistance:
    """The distance of pictures, in float32 on any device."""

    name = f"lpips {VERSION} on {NETWORK}net"

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        sha256: str,
        device: str | torch.device = "cpu",
    ) -> None:
        """`weights` are torchvision's of a whole AlexNet."""
        self.sha256 = sha256
        self.device = torch.device(device)
        self.network = _build_network(weights).to(device)

    @classmethod
    def from_file(cls, path: Path | None = None, *, device: str | torch.device) -> "LpipsDistance":
        """Load the released weights at `path`; None: where torchvision keeps its download."""
        path = path or WEIGHTS.default_path
        sha256 = WEIGHTS.check(path)
        return cls(WEIGHTS.read(path), sha256=sha256, device=device)

    @torch.inference_mode()
    def compare(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of each pair of pixels (B, 3, H, W) in [-1, 1], as (B,); 0: the same."""
        if min(first.shape[-2:]) < MIN_SIZE:
            raise ValueError(
                f"LPIPS needs pictures of at least {MIN_SIZE} x {MIN_SIZE} pixels, got "
                f"{first.shape[-2]} x {first.shape[-1]}; leave it out with --no-lpips"
            )
        with full_precision():
            distances = self.network(first.to(self.device), second.to(self.device))
        return distances.flatten()


def _build_network(weights: Mapping[str, Tensor]) -> Any:
    """The package's network in eval mode, its layers filled with AlexNet's."""
    try:
        from lpips import LPIPS  # type: ignore[import-untyped]
    except ImportError as error:
        raise RuntimeError(
            "LPIPS comes with the package lpips; run pip install lpips, or leave it out with "
            "--no-lpips"
        ) from error
    with warnings.catch_warnings():
        # It calls torchvision in a way that warns, and is asked for no weights at all.
        warnings.simplefilter("ignore", UserWarning)
        network = LPIPS(net=NETWORK, version=VERSION, pnet_rand=True, verbose=False)
    backbone = network.net
    # "slice2.3.weight" there is layer "features.3.weight" of AlexNet.
    names = {key: f"features.{key.partition('.')[2]}" for key in backbone.state_dict()}
    if missing := sorted({*names.values()} - {*weights}):
        raise ValueError(
            f"the weights of AlexNet lack {', '.join(missing)}; {WEIGHTS.source} has all"
        )
    backbone.load_state_dict({key: weights[name] for key, name in names.items()})
    return network
