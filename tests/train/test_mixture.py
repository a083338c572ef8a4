"""The mixture plan: shares by weight, every row before any again, the same for every process."""

from collections import Counter

import numpy as np
import pytest

from train.mixture import plan_mixture


def test_an_epoch_holds_every_row_once() -> None:
    plan = plan_mixture([5, 3], [None, None])
    assert sorted(zip(plan.sources.tolist(), plan.rows.tolist(), strict=True)) == [
        *((0, row) for row in range(5)),
        *((1, row) for row in range(3)),
    ]


def test_samples_are_shared_by_weight() -> None:
    plan = plan_mixture([10, 1000, 7], [1, 2, 1], num_samples=1001)
    counts = Counter(plan.sources.tolist())
    assert counts == {0: 250, 1: 501, 2: 250}


def test_a_small_source_starts_again_only_when_all_its_rows_were_seen() -> None:
    plan = plan_mixture([10, 100], [1, 1], num_samples=50)
    rows = plan.rows[plan.sources == 0].tolist()
    assert sorted(rows[:10]) == sorted(rows[10:20]) == list(range(10))
    assert rows[:10] != rows[10:20]


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    first, second, other = (plan_mixture([50, 50], [1, 1], seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.rows, second.rows)
    assert np.array_equal(first.sources, second.sources)
    assert not np.array_equal(first.rows, other.rows)


@pytest.mark.parametrize(
    ("num_rows", "weights", "message"),
    [
        ([], [], "at least one source"),
        ([1, 2], [1.0, None], "every source a weight or none"),
        ([1], [0.0], "must be above 0"),
        ([1, 0], [None, None], "source 1 of the mixture has no rows"),
    ],
)
def test_impossible_mixtures_are_refused(
    num_rows: list[int], weights: list[float | None], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan_mixture(num_rows, weights)
