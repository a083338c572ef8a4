"""MM-Vet's averages of grades: by capability, by set of capabilities, and over runs.

The six capabilities are recognition, knowledge, text in pictures (ocr), spatial awareness,
language generation and math; a question needs one or several.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.arithmetic import running_sum

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")
DECIMAL_PLACES = 1


def set_name(capabilities: Iterable[str]) -> str:
    """The name of a set of capabilities, such as `know_rec`."""
    return "_".join(sorted(set(capabilities)))


@dataclass(frozen=True)
class Capabilities:
    """Scores in percent, means over runs rounded as officially, the commonest groups first."""

    by_capability: dict[str, float]
    by_set: dict[str, float]  # of exactly these capabilities, names sorted and joined by _
    total: float
    std: float  # of the runs' totals, over the population
    runs: tuple[float, ...]  # total of each run


def average_grades(
    capabilities: Mapping[str, Sequence[str]], scores: Mapping[str, Sequence[float]]
) -> Capabilities:
    """Grades 0 to 1 of every question and run, averaged by capability and by set of them."""
    sets = {key: set_name(names) for key, names in capabilities.items()}
    members = {key: sorted(set(names)) for key, names in capabilities.items()}
    totals = _percent(scores, list(capabilities))
    return Capabilities(
        by_capability={
            name: _rounded(
                _percent(scores, [key for key in members if name in members[key]]).mean()
            )
            for name, _ in Counter(
                name for names in members.values() for name in names
            ).most_common()
        },
        by_set={
            name: _rounded(_percent(scores, [key for key in sets if sets[key] == name]).mean())
            for name, _ in Counter(sets.values()).most_common()
        },
        total=_rounded(totals.mean()),
        std=_rounded(totals.std()),
        runs=tuple(_rounded(total) for total in totals),
    )


def _percent(scores: Mapping[str, Sequence[float]], keys: Sequence[str]) -> np.ndarray:
    """Mean over the questions in percent, for each run; summed in order as officially."""
    runs = zip(*(scores[key] for key in keys), strict=True)
    return np.array([running_sum(run) for run in runs]) / len(keys) * 100


def _rounded(value: float) -> float:
    # numpy's rounding, which the official numbers have, differs from Python's on some halves.
    return float(np.round(value, DECIMAL_PLACES))
