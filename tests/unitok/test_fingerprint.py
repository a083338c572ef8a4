import pytest
import torch

from unitok.fingerprint import NUM_SAMPLES, fingerprint


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"a": torch.randn(3, 5), "b": torch.randn(()), "c": torch.randn(2, NUM_SAMPLES - 1)}


def test_a_fingerprint_is_16_hex_digits_and_stable(weights):
    name = fingerprint(weights)
    assert len(name) == 16
    assert int(name, 16) >= 0
    assert fingerprint(dict(reversed(weights.items()))) == name


def test_the_float32_and_bfloat16_forms_share_their_name(weights):
    assert fingerprint({k: v.bfloat16() for k, v in weights.items()}) == fingerprint(weights)


def test_the_order_in_memory_does_not_matter():
    weight = torch.randn(4, 3, 5, 5)
    other = weight.to(memory_format=torch.channels_last)
    assert fingerprint({"conv": other}) == fingerprint({"conv": weight})


@pytest.mark.parametrize(("key", "position"), [("a", 0), ("a", -1), ("b", 0), ("c", 0), ("c", -2)])
def test_another_value_gives_another_name(weights, key, position):
    before = fingerprint(weights)
    weights[key].view(-1)[position] += 1
    assert fingerprint(weights) != before


def test_another_key_or_shape_gives_another_name(weights):
    before = fingerprint(weights)
    assert fingerprint({**weights, "a": weights["a"].T.contiguous()}) != before
    assert fingerprint({k + "x": v for k, v in weights.items()}) != before
    assert fingerprint({k: v for k, v in weights.items() if k != "b"}) != before
