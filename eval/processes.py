"""Work spread over processes: each takes its share of the items and counts what it has done.

Processes come from outside, from torchrun or a Slurm array, or one command starts them. A task goes
to these pickled, so its class must live in a module that they can import. It stores what it makes
itself, in one step per item: a run that was killed at any moment goes on with the items that are
missing.
"""

import multiprocessing
import os
import queue
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

from mllm.console import USER_ERRORS, announce, progress_bar, quiet_libraries
from mllm.share import WHOLE, Share

Item = TypeVar("Item")
CountDone = Callable[[int], None]  # called with the number of items that were just finished
POLL_SECONDS = 0.2


def own_items(items: Sequence[Item], share: Share) -> Sequence[Item]:
    """The items of one process; every `count`-th, so that easy and hard ones are spread alike."""
    return items[share.index :: share.count]


def own_share(num_processes: int) -> Share:
    """What this process does, by its environment; ValueError if it is to start others as well."""
    share = Share.from_environment()
    if num_processes > 1 and share.count > 1:
        raise ValueError(
            f"this is one of {share.count} processes already; leave --num-processes out"
        )
    return share


class Task(Protocol):
    """Work that can be shared out."""

    def run(self, share: Share, count_done: CountDone) -> None:
        """Do the share; call `count_done` after each stored item."""


def run_task(
    task: Task, *, num_processes: int, count_done: CountDone, share: Share = WHOLE
) -> None:
    """Run a share of a task here, or all of it in `num_processes` processes of its own.

    A process that fails ends the others; its error is raised here as a RuntimeError.
    """
    if num_processes < 1:
        raise ValueError(f"num_processes must be at least 1, got {num_processes}")
    if num_processes == 1:
        task.run(share, count_done)
        return
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    processes = [
        context.Process(
            target=_run_share, args=(task, Share(index, num_processes), messages), daemon=True
        )
        for index in range(num_processes)
    ]
    try:
        for process in processes:
            process.start()
        _follow(processes, messages, count_done)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            if process.pid is not None:
                process.join()


def run_with_bar(
    task: Task,
    description: str,
    *,
    num_done: int,
    num_items: int,
    num_processes: int,
    share: Share = WHOLE,
) -> None:
    """Run a task that goes on after `num_done` of `num_items`, with a bar that counts them."""
    # Bars of several processes would overwrite each other.
    with progress_bar(description) if share.index == 0 else nullcontext(_show_nothing) as report:

        def count_done(number: int) -> None:
            nonlocal num_done
            num_done += number
            report(num_done, num_items)

        try:
            run_task(task, num_processes=num_processes, count_done=count_done, share=share)
        except KeyboardInterrupt:
            if share.index == 0:
                announce("stopped; start again with the same command to go on")
            raise


def _show_nothing(done: int, total: int) -> None:
    """Only the first process shows a bar."""


def _follow(processes: Sequence[BaseProcess], messages: Any, count_done: CountDone) -> None:
    """Count what the processes report until all have ended; raise what the first failed with."""
    while True:
        # Asked before the queue is read: what a process sent before it ended is still counted.
        is_over = not any(process.is_alive() for process in processes)
        try:
            while True:
                message = messages.get(timeout=0 if is_over else POLL_SECONDS)
                if isinstance(message, str):
                    raise RuntimeError(message)
                count_done(message)
        except queue.Empty:
            pass
        for index, process in enumerate(processes):
            if process.exitcode:
                raise RuntimeError(
                    f"process {index} of {len(processes)} ended with code {process.exitcode}; "
                    "start again with the same command to go on"
                )
        if is_over:
            return


def _run_share(task: Task, share: Share, messages: Any) -> None:
    """What a process does; the number of finished items or a user's error goes to its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted parent ends its processes
    quiet_libraries()
    _hide_bars()
    _share_machine(share)
    parent = multiprocessing.parent_process()

    def count_done(number: int) -> None:
        if parent is not None and not parent.is_alive():
            os._exit(1)  # killed: nobody waits for this process any more
        messages.put(number)

    try:
        task.run(share, count_done)
    except USER_ERRORS as error:
        messages.put(str(error))


def _hide_bars() -> None:
    """Those of libraries: bars of several processes would overwrite each other."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _share_machine(share: Share) -> None:
    """A GPU for each process (see `process_device`), and an equal part of the cores."""
    import torch

    os.environ["LOCAL_RANK"] = str(share.index)
    # Processes that each take all cores only slow each other down.
    part = max(1, (os.cpu_count() or 1) // share.count)
    torch.set_num_threads(min(torch.get_num_threads(), part))
