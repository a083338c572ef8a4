"""The perceptual loss: LPIPS, arXiv 1801.03924, between a reconstruction and its picture."""

import logging
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor

from eval.lpips_network import Backbone, backbone_weights, build_lpips
from eval.released_weights import ReleasedWeights
from train.config import RunConfig
from train.frozen_networks import FrozenNetwork, fixed_random_weights

logger = logging.getLogger(__name__)

MIN_SIDE = 48  # below, the last layers see less than a handful of places


class PerceptualConfig(RunConfig):
    """Which frozen network compares."""

    backbone: Backbone = "vgg"
    # torchvision's .pth file; None: from torch's cache, or downloaded to there; random: to try a
    # recipe without any.
    weights: Literal["random"] | Path | None = None


class PerceptualLoss(FrozenNetwork):
    """How different two pictures look to a frozen network, in float32 also under autocast."""

    def __init__(self, config: PerceptualConfig) -> None:
        """FileNotFoundError if the weights are neither there nor to be had, ValueError for others.

        Random ones are the same in every process and every run.
        """
        super().__init__()
        with fixed_random_weights():
            self.network = build_lpips(config.backbone, _find_weights(config))
        self.freeze()

    def forward(self, reconstruction: Tensor, pixels: Tensor) -> Tensor:
        """The mean distance, a scalar, of pixels (B, 3, H, W) in [-1, 1] and their reconstruction.

        The reconstruction is taken as it is, beyond [-1, 1] too.
        """
        height, width = pixels.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise ValueError(
                f"the perceptual loss needs pictures of at least {MIN_SIDE} x {MIN_SIDE} pixels, "
                f"got {height} x {width}; train on larger ones or set its weight to 0"
            )
        with torch.autocast(pixels.device.type, enabled=False):
            return self.network(reconstruction.float(), pixels.float()).mean()


def _find_weights(config: PerceptualConfig) -> dict[str, Tensor] | None:
    """The backbone's weights, checked by their hash; None for random ones."""
    if config.weights == "random":
        return None
    released = backbone_weights(config.backbone, option="`weights` of the perceptual loss")
    path = config.weights or _download(released)
    released.check(path)
    return released.read(path)


def _download(released: ReleasedWeights) -> Path:
    """Where torch keeps the file, fetched first if it is not there."""
    path = released.default_path
    if path.is_file():
        return path
    logger.info("downloading %s to %s", released.source, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(released.source, str(path), released.sha256, progress=False)
    except URLError as error:
        raise FileNotFoundError(
            f"no {released.network} weights at {path}, and {released.source} cannot be reached "
            f"({error.reason}); download it to there, or name the file with {released.option}"
        ) from error
    return path
