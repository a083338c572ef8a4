"""Many pictures read by a few threads, while somebody works on those that are read already."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_READERS = 8


def read_ahead(
    read: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 2 * MAX_READERS
) -> Generator[Result, None, None]:
    """`read(item)` of each item, in order; at most `ahead` of them are under way or waiting.

    An error of `read` is raised where its result would have come.
    """
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    waiting: deque[Future[Result]] = deque()
    remaining = iter(items)
    pool = ThreadPoolExecutor(min(MAX_READERS, os.cpu_count() or 1))
    try:
        waiting.extend(pool.submit(read, item) for item in islice(remaining, ahead))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(read, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # nobody waits for the rest any more


def read_batches(
    read: Callable[[Item], Result], batches: Sequence[Sequence[Item]]
) -> Iterator[list[Result]]:
    """`read(item)` of the items of each batch; the next batch is read meanwhile."""
    ahead = 2 * max(map(len, batches), default=1)
    with closing(read_ahead(read, chain.from_iterable(batches), ahead=ahead)) as results:
        for batch in batches:
            yield list(islice(results, len(batch)))
