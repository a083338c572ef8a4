"""Usage and perplexity of codebooks."""

import numpy as np
import pytest

from eval.codebook_use import measure_use, use_of_shares


def test_an_evenly_used_codebook_has_full_usage_and_perplexity():
    codes = np.arange(32).reshape(2, 16, 1) % 8
    use = measure_use(codes, 8)
    assert use.usage_K == pytest.approx([100])
    assert use.perplexity_K == pytest.approx([8])


def test_each_codebook_is_counted_on_its_own():
    codes = np.stack([np.zeros((1, 4)), [[0, 1, 0, 1]], [[3, 3, 3, 2]]], axis=-1).astype(np.uint16)
    use = measure_use(codes, 4)
    assert use.usage_K == pytest.approx([25, 50, 50])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert use.perplexity_K == pytest.approx([1, 2, np.exp(entropy)])


def test_an_entry_counts_as_used_above_a_hundredth_of_the_uniform_probability():
    codes = np.zeros((1, 1000, 1), dtype=int)
    codes[0, :3] = 1  # 0.003 of all, where uniform is 0.25: above 0.0025
    assert measure_use(codes, 4).usage_K == pytest.approx([50])
    codes[0, 2] = 0  # 0.002
    assert measure_use(codes, 4).usage_K == pytest.approx([25])


def test_shares_alone_say_the_same():
    use = use_of_shares(np.array([[0.25, 0.25, 0.25, 0.25], [0.999, 0.001, 0.0, 0.0]]))
    assert use.usage_K.tolist() == [100.0, 25.0]
    use = use_of_shares(np.array([[0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0], [1.0, 0, 0, 0]]))
    assert use.perplexity_K == pytest.approx([4, 2, 1])
