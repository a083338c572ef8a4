"""LPIPS is the package's, with AlexNet's weights from a file."""

import warnings

import pytest
import torch
from lpips import LPIPS
from torchvision.models import alexnet

from eval.lpips_distance import WEIGHTS, LpipsDistance


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return alexnet(weights=None).state_dict()


def test_the_distance_is_that_of_the_package_with_the_given_backbone(weights):
    distance = LpipsDistance(weights, sha256="0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        official = LPIPS(net="alex", pnet_rand=True, verbose=False)
    layers = [each for part in official.net.children() for each in part.children()]
    for index, layer in enumerate(layers):
        names = {"weight", "bias"} & {*layer.state_dict()}
        layer.load_state_dict({name: weights[f"features.{index}.{name}"] for name in names})
    first, second = torch.rand(2, 2, 3, 48, 64) * 2 - 1
    with torch.inference_mode():
        expected = official(first, second).flatten()
    values = distance.compare(first, second)
    assert values.shape == (2,)
    assert torch.equal(values, expected)
    assert (distance.compare(first, first) == 0).all()
    assert (values > 0).all()


def test_weights_that_lack_a_layer_are_refused(weights):
    others = {key: each for key, each in weights.items() if key != "features.3.bias"}
    with pytest.raises(ValueError, match=r"the backbone's weights lack features\.3\.bias"):
        LpipsDistance(others, sha256="0")


def test_pictures_too_small_to_compare_are_refused(weights):
    pixels = torch.zeros(1, 3, 16, 64)
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 16 x 64; leave it out"):
        LpipsDistance(weights, sha256="0").compare(pixels, pixels)


def test_missing_weights_say_what_to_get(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"no AlexNet weights at {WEIGHTS.default_path}"):
        LpipsDistance.from_file(device="cpu")
