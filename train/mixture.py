"""Which row of which source each training sample is: planned at once, the same for every process.

A run's samples are numbered 0 to N - 1 before it starts. Sample i depends on the seed, the
sources' sizes and their weights alone, so a resumed run, or one with more workers, sees the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class MixturePlan:
    """Source and row of every sample."""

    sources: np.ndarray  # (N,) uint16
    rows: np.ndarray  # (N,) of the smallest unsigned type

    def __len__(self) -> int:
        return len(self.sources)


def plan_mixture(
    num_rows: Sequence[int],
    weights: Sequence[float | None],
    *,
    names: Sequence[str] | None = None,
    num_samples: int | None = None,
    seed: int = 0,
) -> MixturePlan:
    """Share samples between sources by weight; every row of a source comes before any again.

    Args:
        num_rows: of each source.
        weights: of each source, in any unit; None: its number of rows.
        names: of the sources, for messages; None: their numbers.
        num_samples: None: as many as the sources have rows, one epoch.
    """
    check_mixture(num_rows, weights, names or [str(i) for i in range(len(num_rows))])
    shares = np.array(
        [rows if weight is None else weight for rows, weight in zip(num_rows, weights, strict=True)]
    )
    counts = apportion(shares / shares.sum(), num_samples or sum(num_rows))
    sources = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
    np.random.default_rng([seed, len(counts)]).shuffle(sources)
    rows = np.empty(len(sources), np.min_scalar_type(max(num_rows)))
    for number, count in enumerate(counts):
        rows[sources == number] = draw_rows(num_rows[number], int(count), seed=(seed, number))
    return MixturePlan(sources, rows)


def check_mixture(
    num_rows: Sequence[int], weights: Sequence[float | None], names: Sequence[str]
) -> None:
    """Raise ValueError for a mixture that cannot be drawn from."""
    if not num_rows:
        raise ValueError("a mixture needs at least one source, got none")
    if len({weight is None for weight in weights}) > 1:
        raise ValueError(
            f"give every source a weight or none of them, got {list(weights)}; a missing weight "
            "means the number of rows, which has another unit"
        )
    for name, rows, weight in zip(names, num_rows, weights, strict=True):
        if weight is not None and weight <= 0:
            raise ValueError(f"weight {weight} of source {name} must be above 0; or leave it out")
        if rows == 0:
            raise ValueError(f"source {name} of the mixture has no rows; leave it out")


def apportion(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers that add up to `total`, nearest to shares that add up to 1."""
    exact = shares * total
    counts = np.floor(exact).astype(np.int64)
    largest_rest_first = np.argsort(-(exact - counts), kind="stable")
    counts[largest_rest_first[: total - counts.sum()]] += 1
    return counts


def draw_rows(num_rows: int, count: int, *, seed: tuple[int, int]) -> np.ndarray:
    """`count` row numbers: one random order of all rows after another."""
    orders = [
        np.random.default_rng([*seed, turn]).permutation(num_rows)
        for turn in range(-(-count // num_rows))
    ]
    return np.concatenate(orders)[:count] if orders else np.empty(0, np.int64)
