"""Trackers that a run reports to."""

import importlib.util
from collections.abc import Sequence


def check_trackers(names: Sequence[str]) -> None:
    """Raise ValueError for a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ValueError(
                f"watch.report_to needs the package {name}: pip install {name}, or take it out"
            )
