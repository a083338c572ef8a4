"""Reading ahead: in order, bounded, and errors come where their result would have."""

import threading
from itertools import count, islice

import pytest

from mllm.read_ahead import read_ahead, read_batches


def test_results_come_in_the_order_of_the_items() -> None:
    first_may_end = threading.Event()

    def read(number: int) -> int:
        if number == 0:
            first_may_end.wait(5)
        first_may_end.set()
        return number * number

    assert list(read_ahead(read, range(20), ahead=4)) == [number**2 for number in range(20)]


def test_only_so_many_items_are_taken_ahead_of_an_endless_stream() -> None:
    taken = []
    items = (taken.append(number) or number for number in count())
    results = read_ahead(str, items, ahead=3)
    assert list(islice(results, 5)) == ["0", "1", "2", "3", "4"]
    results.close()
    assert len(taken) <= 5 + 3


def test_an_error_is_raised_after_the_results_before_it() -> None:
    results = read_ahead(lambda number: 6 // (3 - number), range(9))
    assert list(islice(results, 3)) == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_ahead_is_an_error() -> None:
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        list(read_ahead(str, range(3), ahead=0))


def test_batches_keep_their_sizes() -> None:
    assert list(read_batches(str, [range(2), range(5, 8), range(0)])) == [
        ["0", "1"],
        ["5", "6", "7"],
        [],
    ]
    assert list(read_batches(str, [])) == []
