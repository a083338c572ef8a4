"""Averaged weights."""

import torch

from tests.mllm.tiny_pipeline import build_tiny_tokenizer
from train.weight_average import WeightAverage


def test_the_average_moves_slower_and_slower_until_its_own_pace() -> None:
    model = build_tiny_tokenizer()
    average = WeightAverage(model, 0.5)
    expected = model.projection.weight.detach().clone()
    for step, decay in enumerate((0.1, 2 / 11, 3 / 12)):
        with torch.no_grad():
            model.projection.weight += 1
        average.update(model, step)
        expected = decay * expected + (1 - decay) * model.projection.weight.detach()
    torch.testing.assert_close(average.model.projection.weight, expected)
    average.update(model, 1000)
    expected = 0.5 * expected + 0.5 * model.projection.weight.detach()
    torch.testing.assert_close(average.model.projection.weight, expected)


def test_buffers_are_copied_and_nothing_of_it_learns() -> None:
    model = build_tiny_tokenizer()
    average = WeightAverage(model, 0.999)
    model.quantizer.vocab_usage_KV.fill_(0.25)
    average.update(model, 0)
    assert torch.equal(average.model.quantizer.vocab_usage_KV, model.quantizer.vocab_usage_KV)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
