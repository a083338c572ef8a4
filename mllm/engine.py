"""Many callers, one model: requests wait in a bounded queue, one thread works on them.

A caller hands in a request with a listener, which is told of text, rows and pictures as they are
made, and last of `Finished` or `Failed`. Listeners are called in the engine's thread and must
return at once.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from PIL import Image

from mllm.answer import ChatAnswer, TextSettings
from mllm.messages import Message
from mllm.pipeline import Pipeline
from mllm.progress import Cancelled
from mllm.sampling import SamplingParams


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
class RowDrawn:
    """A row of a picture's visual tokens is there."""

    row: int  # 1..num_rows
    num_rows: int
    preview: Image.Image | None = None  # what is there so far, if asked for


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

    def __init__(self, pipeline: Pipeline, *, max_waiting: int = 64) -> None:
        self.pipeline = pipeline
        self._waiting: queue.Queue[Job | None] = queue.Queue(maxsize=max_waiting)
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        return self._waiting.qsize()

    def submit(self, request: Request, listener: Listener) -> Job:
        """Queue a request; raises `QueueFull` when there is no room."""
        job = Job(request, listener)
        try:
            self._waiting.put_nowait(job)
        except queue.Full as error:
            raise QueueFull(f"{self._waiting.maxsize} requests wait already; try later") from error
        return job

    def close(self) -> None:
        """Finish what was handed in; nothing may be submitted any more."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            try:
                job.listener(Finished(self._run(job)))
            except Exception as error:
                job.listener(Failed(error))

    def _run(self, job: Job) -> ChatAnswer | Image.Image:
        if job.is_cancelled:
            raise Cancelled
        if isinstance(job.request, DrawRequest):
            return self._draw(job, job.request)
        stream = self.pipeline.stream_chat(job.request.messages, settings=job.request.settings)
        for piece in stream:
            if job.is_cancelled:
                raise Cancelled
            job.listener(piece)
        return stream.answer

    def _draw(self, job: Job, request: DrawRequest) -> Image.Image:
        rows, columns = self.pipeline.model.config.grid

        def report(done: int, total: int) -> None:
            if job.is_cancelled:
                raise Cancelled
            if done % columns == 0:
                job.listener(RowDrawn(done // columns, rows))

        sampling = request.sampling
        (picture,) = self.pipeline.generate_images(
            request.prompt,
            num_images=1,
            seed=request.seed,
            guidance_scale=sampling.guidance_scale,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            progress=report,
        )
        return picture
