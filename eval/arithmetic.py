"""Sums and rounding as the Python versions of the official scorers do them.

Scores are compared digit by digit, and newer Pythons add and round otherwise.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Decimal


def running_sum(numbers: Iterable[float]) -> float:
    """The sum from left to right; since Python 3.12 `sum` corrects rounding errors on its way."""
    total = 0.0
    for number in numbers:
        total += number
    return total


def round_half_away(number: float, decimals: int = 2) -> float:
    """`number` rounded as by Python 2: what lies exactly halfway goes away from zero."""
    return float(Decimal(number).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))
