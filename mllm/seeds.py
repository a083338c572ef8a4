"""Seeds of pictures: each picture has one of its own, and depends on nothing else of its batch."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any


def picture_seeds(seed: int | Sequence[int], *, num_prompts: int, num_images: int) -> list[int]:
    """One seed for each picture, prompt by prompt."""
    if not isinstance(seed, Iterable) or getattr(seed, "ndim", 1) == 0:  # a tensor's single number
        first = as_seed(seed)
        return [first + number for _ in range(num_prompts) for number in range(num_images)]
    seeds = [as_seed(each) for each in seed]
    if len(seeds) != num_prompts * num_images:
        raise ValueError(
            f"expected {num_prompts * num_images} seeds, one for each picture, got {len(seeds)}"
        )
    return seeds


def as_seed(value: Any) -> int:
    """An int of whatever holds a whole number, such as those of numpy."""
    try:
        return operator.index(value)
    except TypeError as error:
        raise ValueError(f"a seed must be a whole number, got {value!r}") from error
