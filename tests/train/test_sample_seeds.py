"""A sample's random numbers: its own, whatever stands beside it."""

import pytest
import torch

from train.sample_seeds import INCREMENT, _mix, _signed, derive, integers, uniform

SEEDS = torch.tensor([0, 1, -1, 2**62, -(2**63)])


def test_the_generator_is_splitmix64():
    # The first numbers of the published C implementation from seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    states = 1234567 + torch.arange(1, 4) * _signed(INCREMENT)
    assert [number % 2**64 for number in _mix(states).tolist()] == expected
    top = torch.tensor([number >> 40 for number in expected]) / 2**24
    assert torch.equal(uniform(torch.tensor([1234567]), (3,))[0], top)


def test_a_samples_numbers_do_not_depend_on_its_batch():
    together = uniform(derive(SEEDS, "crop"), (2, 3))
    alone = [uniform(derive(SEEDS[i : i + 1], "crop"), (2, 3)) for i in range(len(SEEDS))]
    assert together.shape == (5, 2, 3)
    assert torch.equal(together, torch.cat(alone))


def test_the_first_numbers_do_not_depend_on_how_many_follow():
    assert torch.equal(uniform(SEEDS, (10,))[:, :3], uniform(SEEDS, (3,)))
    assert torch.equal(uniform(SEEDS), uniform(SEEDS, (1,))[:, 0])


def test_purposes_and_samples_have_streams_of_their_own():
    seeds = torch.arange(1000)
    names = ("crop", "flip", "augment")
    streams = [derive(seeds, name) for name in names] + [derive(derive(seeds, "crop"), "flip")]
    assert len(torch.cat(streams).unique()) == 4 * 1000
    numbers = torch.stack([uniform(stream) for stream in streams])
    off_diagonal = torch.corrcoef(numbers) - torch.eye(4)
    assert off_diagonal.abs().max() < 0.1  # measured 0.06; 1/sqrt(1000) is one deviation


def test_numbers_are_uniform_in_zero_to_one():
    numbers = uniform(derive(torch.arange(1000), "any"), (100,))
    assert numbers.dtype == torch.float32
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    shares = torch.histc(numbers, bins=20, min=0, max=1) / numbers.numel()
    torch.testing.assert_close(shares, torch.full((20,), 0.05), atol=0.003, rtol=0)


def test_integers_stay_below_their_bounds_and_reach_all_of_them():
    drawn = integers(derive(torch.arange(1000), "any"), (1, 3, 8))
    assert drawn.dtype == torch.int64
    assert [sorted(set(column.tolist())) for column in drawn.unbind(1)] == [
        [0],
        [0, 1, 2],
        list(range(8)),
    ]


@pytest.mark.parametrize("seeds", [torch.zeros(2), torch.zeros(2, 1, dtype=torch.int64)])
def test_other_seeds_are_refused(seeds):
    with pytest.raises(ValueError, match=r"seeds must be \(B,\) int64, one per sample, got"):
        uniform(seeds)
    with pytest.raises(ValueError, match=r"seeds must be \(B,\) int64, one per sample, got"):
        derive(seeds, "crop")
