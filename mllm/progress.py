"""Progress of drawing: what is reported of a part becomes progress of the whole."""

from collections.abc import Callable

from mllm.generation import Progress


class Cancelled(Exception):
    """Ends the writing of an answer that nobody waits for any more."""


def stop_when(is_cancelled: Callable[[], bool]) -> Progress:
    """Progress of a drawing that nobody may wait for any more."""

    def report(done: int, total: int) -> None:
        if is_cancelled():
            raise Cancelled

    return report


def count_tokens(progress: Progress | None, num_pictures: int) -> Progress | None:
    """Steps that each give a visual token to `num_pictures`, as visual tokens."""
    if progress is None:
        return None
    return lambda done, total: progress(done * num_pictures, total * num_pictures)


def part_of_progress(progress: Progress | None, part: slice, num_items: int) -> Progress | None:
    """What is reported about items `part` of `num_items`, as progress of all of them."""
    if progress is None:
        return None

    def report(done: int, total: int) -> None:
        num_per_item = total // (part.stop - part.start)
        progress(part.start * num_per_item + done, num_items * num_per_item)

    return report
