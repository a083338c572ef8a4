"""Progress of drawing: what is reported of a part becomes progress of the whole."""

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from mllm.generation import Progress


class Cancelled(Exception):
    """Ends the writing of an answer that nobody waits for any more."""


@dataclass(frozen=True, eq=False)
class RowDrawn:
    """A row of a picture's visual tokens is there."""

    row: int  # 1..num_rows
    num_rows: int
    preview: Image.Image | None = None  # what is there so far, if asked for


def stop_when(is_cancelled: Callable[[], bool]) -> Callable[[], None]:
    """What ends work that nobody waits for any more."""

    def check() -> None:
        if is_cancelled():
            raise Cancelled

    return check


def part_of_progress(progress: Progress | None, part: slice, num_items: int) -> Progress | None:
    """What is reported about items `part` of `num_items`, as progress of all of them."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        num_per_item = total // (part.stop - part.start)
        progress(part.start * num_per_item + done, num_items * num_per_item)

    return report
