"""Model FLOPs utilisation by hand."""

import pytest
from torch import nn

from train.mfu import flops_per_token, peak_flops, utilisation


def test_learned_and_frozen_weights_count_by_their_passes() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Linear(10, 10, bias=False))
    assert flops_per_token(model) == 6 * 200
    model[1].weight.requires_grad_(False)
    assert flops_per_token(model) == 6 * 100 + 4 * 100


def test_the_peak_is_that_of_the_named_gpu() -> None:
    assert peak_flops("NVIDIA H100 PCIe") == 756e12
    assert peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops("a GPU of next year") is None


def test_utilisation_is_the_share_of_all_devices() -> None:
    model = nn.Linear(1000, 1000, bias=False)
    per_second = 989e12 / 6e6  # tokens that would use one H200 in full
    share = utilisation(per_second, model, device_name="NVIDIA H200", devices=2)
    assert share == pytest.approx(0.5)
    assert utilisation(per_second, model, device_name="unknown", devices=2) is None
