"""How much of a codebook is in use."""

import torch

from train.codebook_usage import codebook_usage, perplexity


def test_usage_counts_entries_above_a_hundredth_of_the_uniform_share() -> None:
    probs_KV = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.999, 0.001, 0.0, 0.0]])
    assert codebook_usage(probs_KV).tolist() == [100.0, 25.0]


def test_perplexity_is_the_number_of_equally_frequent_entries() -> None:
    probs_KV = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(perplexity(probs_KV), torch.tensor([4.0, 2.0, 1.0]))
