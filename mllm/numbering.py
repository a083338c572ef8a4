"""Things in work that are numbers 0, 1, ... without a gap, so that buffers are used as slices."""

from dataclasses import dataclass
from typing import Protocol, TypeVar


class Numbered(Protocol):
    number: int | None  # None: not in work


Item = TypeVar("Item", bound=Numbered)


@dataclass(frozen=True)
class Move:
    """What a buffer holds under one number belongs under another one from now on."""

    source: int
    target: int


def put_in(items: list[Item], item: Item) -> None:
    """Let an item be the last one."""
    item.number = len(items)
    items.append(item)


def take_out(items: list[Item], item: Item) -> Move | None:
    """Remove an item; the last one takes over its number. None: nothing has to move."""
    number = item.number
    assert number is not None
    assert items[number] is item
    last, item.number = items.pop(), None
    if last is item:
        return None
    items[number], last.number = last, number
    return Move(source=len(items), target=number)
