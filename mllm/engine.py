"""Many callers, one model: requests wait in a bounded queue, one thread works on all it can.

A caller hands in a request with a listener, which is told of text, rows and pictures as they are
made, and last of `Finished` or `Failed`. Requests run side by side in a `Batcher`, each as a
program of its own; one comes or goes between any two steps. Listeners are called in the engine's
thread and must return at once.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from mllm.answer import ChatAnswer, TextSettings
from mllm.batcher import Batcher, Run, Wish
from mllm.devices import explain_out_of_memory
from mllm.messages import Message
from mllm.pipeline import MAX_BATCH_SIZE, Pipeline
from mllm.prefix_store import PrefixStore
from mllm.progress import Cancelled, RowDrawn
from mllm.sampling import SamplingParams

__all__ = [
    "ChatRequest",
    "DrawRequest",
    "Engine",
    "Event",
    "Failed",
    "Finished",
    "Job",
    "Listener",
    "QueueFull",
    "Request",
    "RowDrawn",
]

MAX_REMEMBERED = 8192  # positions; at the size of LLaMA-2-7B each takes 0.5 MB in bfloat16
MEMORY_REMEDY = "let fewer requests run side by side (max_active), or use dtype bfloat16"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ChatRequest:
    """The next answer of a conversation."""

    messages: Sequence[Message]
    settings: TextSettings


@dataclass(frozen=True)
class DrawRequest:
    """One picture of a prompt."""

    prompt: str
    seed: int
    sampling: SamplingParams
    preview: bool = False  # decode what is there after each row


@dataclass(frozen=True, eq=False)
class Finished:
    """The last event of a request that went well: its answer, or its picture."""

    result: ChatAnswer | Image.Image


@dataclass(frozen=True)
class Failed:
    """The last event of a request that did not; `Cancelled` if its caller gave up."""

    error: Exception


Request: TypeAlias = ChatRequest | DrawRequest
Event: TypeAlias = str | Image.Image | RowDrawn | Finished | Failed  # a text is a piece of it
Listener: TypeAlias = Callable[[Event], None]


class QueueFull(RuntimeError):
    """So many requests wait that another one is refused."""


class Job:
    """A request in work."""

    def __init__(self, request: Request, listener: Listener) -> None:
        self.request = request
        self.listener = listener
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Give up: the job ends within one step, with `Failed(Cancelled())`."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()


class Engine:
    """Works on requests until it is closed."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        max_active: int = MAX_BATCH_SIZE,
        max_waiting: int = 64,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        """`max_active` requests run side by side, `max_waiting` more may wait for their turn.

        Of finished conversations, `max_remembered` positions are kept, so that a next turn reads
        only what is new.
        """
        if max_active < 1:
            raise ValueError(f"max_active must be at least 1, got {max_active}")
        self.pipeline = pipeline
        self.max_active = max_active
        self.max_waiting = max_waiting
        self._prefixes = PrefixStore(max_remembered)
        self._batcher = Batcher(pipeline.model, prefixes=self._prefixes)
        self._active: dict[Run, Job] = {}
        self._waiting: deque[Job] = deque()
        self._is_closed = False
        self._changed = threading.Condition()  # guards the two above
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_active(self) -> int:
        return len(self._active)

    def submit(self, request: Request, listener: Listener) -> Job:
        """Queue a request; raises `QueueFull` when there is no room."""
        job = Job(request, listener)
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the engine is closed; start a new one")
            if len(self._waiting) >= self.max_waiting:
                raise QueueFull(f"{self.max_waiting} requests wait already; try later")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """Finish what was handed in; nothing may be submitted any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    # -- the engine's thread ---------------------------------------------------------------------

    def _work(self) -> None:
        while self._admit():
            self._step()
            for run in [run for run in self._active if run.has_ended]:
                self._report_end(self._active.pop(run), run)

    def _admit(self) -> bool:
        """Drop cancelled jobs and start waiting ones; waits for one if there is nothing to do.

        False: everything is done, and nothing comes any more.
        """
        for run, job in list(self._active.items()):
            if job.is_cancelled:
                self._batcher.stop(run)
                del self._active[run]
                _tell(job, Failed(Cancelled()))
        with self._changed:
            self._changed.wait_for(lambda: self._active or self._waiting or self._is_closed)
            cancelled = [job for job in self._waiting if job.is_cancelled]
            waiting = [job for job in self._waiting if not job.is_cancelled]
            room = self.max_active - len(self._active)
            self._waiting = deque(waiting[room:])
        for job in cancelled:
            _tell(job, Failed(Cancelled()))
        for job in waiting[:room]:
            self._active[self._batcher.start(self._program(job))] = job
        return bool(self._active or self._waiting or not self._is_closed)

    def _step(self) -> None:
        try:
            with explain_out_of_memory("answering and drawing", MEMORY_REMEDY):
                self._batcher.step()
        except Exception as error:  # of the model itself: it concerns all that run
            logger.exception("a step failed")
            for job in self._active.values():
                _tell(job, Failed(error))
            self._active = {}
            self._batcher = Batcher(self.pipeline.model, prefixes=self._prefixes)

    def _program(self, job: Job) -> Generator[Wish, Any, ChatAnswer | Image.Image]:
        request = job.request
        if isinstance(request, ChatRequest):
            return self.pipeline.answering(request.messages, request.settings, emit=job.listener)
        return self._draw(request, job.listener)

    def _draw(self, request: DrawRequest, listener: Listener) -> Generator[Wish, Any, Image.Image]:
        codes_LK = yield from self.pipeline.drawing(
            self.pipeline.encode_prompt(request.prompt),
            request.sampling,
            seed=request.seed,
            on_row=listener,
            preview=request.preview,
        )
        return self.pipeline.decode(codes_LK[None])[0]

    def _report_end(self, job: Job, run: Run) -> None:
        _tell(job, Finished(run.result) if run.error is None else Failed(run.error))


def _tell(job: Job, event: Event) -> None:
    """Call a listener; one that fails must not end the work for all others."""
    try:
        job.listener(event)
    except Exception:
        logger.exception("a listener failed")
