"""LPIPS as a measure: on AlexNet, which its authors recommend for measuring; training has VGG."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from eval.lpips_network import VERSION, backbone_weights, build_lpips
from eval.precision import full_precision

WEIGHTS = backbone_weights("alex", option="--alexnet, or leave LPIPS out with --no-lpips")
MIN_SIZE = 32  # pixels: below, the last layers of AlexNet have nothing left to see


class LpipsDistance:
    """The distance of pictures, in float32 on any device."""

    name = f"lpips {VERSION} on AlexNet"

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
        self.network = build_lpips("alex", weights).to(device)

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
