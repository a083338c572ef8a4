"""The networks of LPIPS (Zhang et al., arXiv 1801.03924), as its package `lpips` builds them.

The package brings the learned weights of the distance along, but downloads those of the backbone
from torchvision: here they are a file like Inception's, checked by its hash.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor
from torchvision.models import AlexNet_Weights, VGG16_Weights

from eval.released_weights import ReleasedWeights

VERSION = "0.1"
Backbone = Literal["alex", "vgg"]
PUBLISHED = {
    "alex": ("AlexNet", AlexNet_Weights.IMAGENET1K_V1),
    "vgg": ("VGG-16", VGG16_Weights.IMAGENET1K_V1),
}


def backbone_weights(backbone: Backbone, *, option: str) -> ReleasedWeights:
    """The file of torchvision's that a backbone needs; `option` names it in the caller's words."""
    network, weights = PUBLISHED[backbone]
    file_name = weights.url.rpartition("/")[2]
    return ReleasedWeights(
        network=network,
        file_name=file_name,
        sha256=file_name.removesuffix(".pth").rpartition("-")[2],  # torchvision's names end in it
        source=weights.url,
        option=option,
    )


def build_lpips(backbone: Backbone, weights: Mapping[str, Tensor] | None) -> Any:
    """The package's network in eval mode: pairs of pixels in [-1, 1] -> distances (B, 1, 1, 1).

    `weights` are torchvision's of the whole classifier; None: the backbone's are random.
    """
    try:
        from lpips import LPIPS
    except ImportError as error:
        raise RuntimeError("LPIPS comes with the package lpips; run pip install lpips") from error
    with warnings.catch_warnings():
        # It calls torchvision in a way that warns, and is asked for no weights at all.
        warnings.simplefilter("ignore", UserWarning)
        network = LPIPS(net=backbone, version=VERSION, pnet_rand=True, verbose=False)
    if weights is not None:
        _fill(network.net, weights)
    return network


def _fill(network: Any, weights: Mapping[str, Tensor]) -> None:
    """Give the package's slices torchvision's layers: there, slice2.3 is layer features.3."""
    names = {key: f"features.{key.partition('.')[2]}" for key in network.state_dict()}
    if missing := sorted({*names.values()} - {*weights}):
        raise ValueError(
            f"the backbone's weights lack {', '.join(missing)}; expected those that torchvision "
            "publishes"
        )
    network.load_state_dict({key: weights[name] for key, name in names.items()})
