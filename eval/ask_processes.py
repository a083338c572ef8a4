"""The processes that ask: one with a share of its own, or several that one command starts."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import SimpleQueue

import torch

from eval.answer_parts import count_answers
from eval.asking import AskConfig, Asking, Report
from mllm.console import USER_ERRORS, announce, quiet_libraries
from mllm.pipeline import Pipeline
from mllm.share import Share, process_device

SECONDS_BETWEEN_LOOKS = 1.0


def ask_share(asking: Asking, share: Share, *, report: Report) -> None:
    """Load the model and ask one share of the questions."""
    config = asking.config
    if share.index == 0:
        announce(f"loading model {config.model}")
    device = process_device(config.device)
    pipeline = Pipeline.from_pretrained(config.model, device=device, dtype=config.dtype)
    asking.ask(pipeline, share, report=report)


def ask_in_processes(asking: Asking, num_processes: int, *, report: Report) -> None:
    """Ask all questions from several processes of this machine; the first error ends them all."""
    context = multiprocessing.get_context("spawn")
    errors: SimpleQueue[str] = context.SimpleQueue()
    workers = [
        context.Process(
            target=_work, args=(asking.config, Share(index, num_processes), errors), daemon=True
        )
        for index in range(num_processes)
    ]
    num_before, total = count_answers(asking.parts), asking.num_missing()
    try:
        for worker in workers:
            worker.start()
        while alive := [worker.sentinel for worker in workers if worker.is_alive()]:
            wait(alive, timeout=SECONDS_BETWEEN_LOOKS)
            report(min(count_answers(asking.parts) - num_before, total), total)
            _raise_failure(workers, errors)
        _raise_failure(workers, errors)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()


def _raise_failure(workers: Sequence[SpawnProcess], errors: "SimpleQueue[str]") -> None:
    """Raise what went wrong in a process, if anything did."""
    if not errors.empty():
        raise RuntimeError(errors.get())
    for number, worker in enumerate(workers):
        if worker.exitcode:
            raise RuntimeError(
                f"process {number} of {len(workers)} ended with exit code {worker.exitcode}; "
                "start the same command again to go on"
            )


def _work(config: AskConfig, share: Share, errors: "SimpleQueue[str]") -> None:
    """Body of a process that `ask_in_processes` starts; GPUs and threads are shared out."""
    quiet_libraries()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    torch.set_num_threads(max(1, torch.get_num_threads() // share.count))
    os.environ["LOCAL_RANK"] = str(share.index)
    try:
        ask_share(Asking(config), share, report=_stop_orphan)
    except USER_ERRORS as error:
        errors.put(str(error))


def _stop_orphan(done: int, total: int) -> None:
    """End this process once the one that started it was killed: the command may run again."""
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():
        raise SystemExit
