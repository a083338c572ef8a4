"""Confidence intervals by the percentile bootstrap: draw the sample anew and look at the spread.

A sample has strata (GenEval's tasks; otherwise one), a stratum has units (prompts, questions), and
a unit has the sum of its scores and their number: the pictures of one prompt are drawn together.
The statistic is the plain mean over strata of the mean score in each, as GenEval's overall score.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_RESAMPLES = 2000
LEVEL = 0.95
SEED = 0


@dataclass(frozen=True)
class Interval:
    """What a score may be, in its own unit."""

    low: float
    high: float


def bootstrap_interval(
    strata: Sequence[NDArray[np.float64]],
    *,
    seed: int = SEED,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """The interval of the mean over `strata`, each (units, 2): sum of scores, number of scores.

    Units are drawn with replacement within their stratum. The same seed gives the same interval.
    """
    for number, units in enumerate(strata):
        if units.ndim != 2 or units.shape[1] != 2 or not len(units) or units[:, 1].min() <= 0:
            raise ValueError(
                f"stratum {number} must have rows (sum of scores, number of scores above 0), got "
                f"an array of {units.shape}"
            )
    if not strata:
        raise ValueError("an interval needs at least one stratum, got none")
    generator = np.random.default_rng(seed)
    means = np.array(
        [
            [_mean(units[generator.integers(len(units), size=len(units))]) for units in strata]
            for _ in range(num_resamples)
        ]
    ).mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _mean(units: NDArray[np.float64]) -> float:
    """Mean score of the units, by the number of scores that each has."""
    total, number = units.sum(axis=0)
    return float(total / number)
