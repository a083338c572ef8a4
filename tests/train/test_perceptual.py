"""The perceptual loss: LPIPS on a frozen network, with weights that are found or asked for."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor
from torchvision.models import AlexNet_Weights

from eval.file_hashes import sha256_of
from eval.lpips_network import backbone_weights
from train import perceptual as module
from train.perceptual import PerceptualConfig, PerceptualLoss

RANDOM = PerceptualConfig(backbone="alex", weights="random")


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    return PerceptualLoss(RANDOM)


@pytest.fixture
def pixels() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 3, 48, 56, generator=generator) * 2 - 1


def test_it_is_the_published_distance(loss, pixels):
    network: Any = loss.network
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    reconstruction = 0.5 * pixels
    first, second = (network.net((each - shift) / scale) for each in (reconstruction, pixels))
    expected = torch.zeros(())
    for number, (ours, theirs) in enumerate(zip(first, second, strict=True)):
        weight = network.get_parameter(f"lin{number}.model.1.weight")
        difference = (F.normalize(ours, dim=1) - F.normalize(theirs, dim=1)).square()
        expected += F.conv2d(difference, weight).mean()
    assert expected > 0.01
    torch.testing.assert_close(loss(reconstruction, pixels), expected)


def test_it_is_zero_for_the_same_picture_and_grows_with_the_noise(loss, pixels):
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(1))
    values = [loss(pixels + level * noise, pixels).item() for level in (0, 0.05, 0.2, 0.8)]
    assert values[0] == 0
    assert values == sorted(values)


def test_it_is_the_mean_over_the_samples(loss, pixels):
    reconstruction = pixels.flip(-1)
    alone = [loss(reconstruction[i : i + 1], pixels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(reconstruction, pixels), torch.stack(alone).mean())


def test_the_reconstruction_gets_a_gradient_and_the_network_none(loss, pixels):
    loss.train()
    reconstruction = (0.5 * pixels).requires_grad_()
    loss(reconstruction, pixels).backward()
    assert reconstruction.grad is not None
    assert (reconstruction.grad.flatten(1).abs().sum(dim=1) > 0).all()
    assert all(value.grad is None and not value.requires_grad for value in loss.parameters())
    assert not any(each.training for each in loss.modules())  # the package has dropout


def test_it_computes_in_float32_under_autocast(loss, pixels):
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(0.5 * pixels, pixels)
    assert torch.equal(mixed, loss(0.5 * pixels, pixels))


def test_random_weights_are_the_same_in_every_run_and_leave_the_random_state_alone(loss):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    again = PerceptualLoss(RANDOM).state_dict()
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, again[name]) for name, value in loss.state_dict().items())


def test_small_pictures_are_refused(loss):
    message = "needs pictures of at least 48 x 48 pixels, got 64 x 47; train on larger ones or set"
    with pytest.raises(ValueError, match=message):
        loss(torch.zeros(1, 3, 64, 47), torch.zeros(1, 3, 64, 47))


@pytest.fixture
def published(
    loss: PerceptualLoss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    """Pretend that torchvision published these weights, and that torch keeps them in a folder."""
    network: Any = loss.network
    weights = {
        f"features.{key.partition('.')[2]}": value + 1
        for key, value in network.net.state_dict().items()
    }
    file = tmp_path / "published.pth"
    torch.save({**weights, "classifier.1.bias": torch.zeros(4)}, file)
    released = replace(
        backbone_weights("alex", option="`weights` of the perceptual loss"),
        sha256=sha256_of(file)[:8],
    )
    monkeypatch.setattr(module, "backbone_weights", lambda backbone, option: released)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    return weights


def check_weights(loss: PerceptualLoss, weights: dict[str, Tensor]) -> None:
    found: dict[str, Tensor] = loss.network.net.state_dict()
    for key, value in found.items():
        assert torch.equal(value, weights[f"features.{key.partition('.')[2]}"]), key


def test_weights_come_from_a_file(published, tmp_path):
    config = PerceptualConfig(backbone="alex", weights=tmp_path / "published.pth")
    check_weights(PerceptualLoss(config), published)


def test_without_a_file_they_are_downloaded_once_to_torchs_cache(published, tmp_path, monkeypatch):
    def download(source: str, path: str, sha256: str, progress: bool) -> None:
        assert source == AlexNet_Weights.IMAGENET1K_V1.url
        (tmp_path / "published.pth").rename(path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):  # the second time, there is nothing left to download
        check_weights(PerceptualLoss(PerceptualConfig(backbone="alex")), published)


def test_offline_it_says_which_file_to_get(tmp_path, monkeypatch):
    def fail(*args: Any, **options: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = (
        r"no VGG-16 weights at .*vgg16-397923af.pth, and https://.*/vgg16-397923af.pth cannot be "
        r"reached \(no route to host\); download it to there, or name the file with `weights` of"
    )
    with pytest.raises(FileNotFoundError, match=message):
        PerceptualLoss(PerceptualConfig())


def test_a_missing_file_and_anothers_weights_are_refused(tmp_path):
    missing = PerceptualConfig(weights=tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"no VGG-16 weights at .*none.pth; download https"):
        PerceptualLoss(missing)
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="other weights give other scores: download https"):
        PerceptualLoss(PerceptualConfig(weights=other))


def test_the_config_tells_random_from_a_file_and_refuses_other_networks():
    assert PerceptualConfig.model_validate({"weights": "random"}).weights == "random"
    assert PerceptualConfig.model_validate({"weights": "a.pth"}).weights == Path("a.pth")
    assert PerceptualConfig.model_validate({}).weights is None
    with pytest.raises(ValidationError, match="'alex' or 'vgg'"):
        PerceptualConfig.model_validate({"backbone": "squeeze"})
