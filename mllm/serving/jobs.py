"""From the engine's thread to asyncio and back: events that are awaited, places that are freed."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from PIL import Image
from starlette.requests import ClientDisconnect

from mllm.answer import ChatAnswer
from mllm.engine import Engine, Event, Failed, Finished, QueueFull, Request
from mllm.progress import Cancelled
from mllm.serving.errors import ApiError

RETRY_SECONDS = 2  # when a client whom the queue has no room for may come back


class RunningJob:
    """A request that the engine works on, for one reader."""

    def __init__(self, engine: Engine, request: Request, *, seconds: float) -> None:
        """Raises `QueueFull` when the engine has no room; an answer may take `seconds`."""
        self._loop = asyncio.get_running_loop()
        self._deadline = self._loop.time() + seconds
        self._seconds = seconds
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self.is_refused = False
        self._job = engine.submit(request, self._tell)

    def _tell(self, event: Event) -> None:
        """Called in the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def cancel(self) -> None:
        """Free the engine for others; a job that has ended stays as it is."""
        self._job.cancel()

    def refuse(self) -> None:
        """Cancel, and tell the reader that the server stops."""
        self.is_refused = True
        self._job.cancel()

    async def next_event(self) -> Event:
        """What comes next; raises what the reader is to be told in place of an answer."""
        try:
            async with asyncio.timeout_at(self._deadline):
                event = await self._events.get()
        except TimeoutError as error:
            self.cancel()
            raise ApiError(
                504,
                f"the answer took longer than {self._seconds:g} s; ask for less, or later",
                headers={"x-should-retry": "false"},
            ) from error
        if isinstance(event, Failed):
            raise self._explain(event.error)
        return event

    async def answer(self) -> ChatAnswer:
        """The whole answer to a conversation."""
        result = (await self._finished()).result
        assert isinstance(result, ChatAnswer)
        return result

    async def picture(self) -> Image.Image:
        """The complete picture of a prompt."""
        result = (await self._finished()).result
        assert isinstance(result, Image.Image)
        return result

    async def _finished(self) -> Finished:
        while not isinstance(event := await self.next_event(), Finished):
            pass
        return event

    def _explain(self, error: Exception) -> Exception:
        if isinstance(error, ValueError):
            return ApiError(400, str(error))
        if isinstance(error, Cancelled):
            return stopping() if self.is_refused else ClientDisconnect()
        return error


class Jobs:
    """All requests that the server works on."""

    def __init__(self, engine: Engine, *, max_reading: int, answer_seconds: float) -> None:
        """`max_reading` requests may be on their way in at a time: each holds its pictures."""
        self.engine = engine
        self.max_reading = max_reading
        self.answer_seconds = answer_seconds
        self._num_reading = 0
        self.is_stopping = False
        self._running: set[RunningJob] = set()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A request is read and checked within; raises `ApiError` if too many are."""
        if self._num_reading >= self.max_reading:
            raise full(f"{self.max_reading} requests are on their way in already; try later")
        self._num_reading += 1
        try:
            yield
        finally:
            self._num_reading -= 1

    def start(self, requests: Sequence[Request]) -> list[RunningJob]:
        """Queue all requests or none; every started job must be given back to `end`."""
        if self.is_stopping:
            raise stopping()
        jobs: list[RunningJob] = []
        try:
            for request in requests:
                job = RunningJob(self.engine, request, seconds=self.answer_seconds)
                self._running.add(job)
                jobs.append(job)
        except QueueFull as error:
            self.end(jobs)
            raise full(str(error)) from error
        return jobs

    def end(self, jobs: Iterable[RunningJob]) -> None:
        """Nobody reads these jobs any more; what still works stops within one step."""
        for job in jobs:
            job.cancel()
            self._running.discard(job)

    def stop(self) -> None:
        """Refuse what is in work, and whatever comes."""
        self.is_stopping = True
        for job in self._running:
            job.refuse()


def full(reason: str) -> ApiError:
    headers = {"retry-after": str(RETRY_SECONDS)}
    return ApiError(429, f"the queue is full: {reason}", code="queue_full", headers=headers)


def stopping() -> ApiError:
    return ApiError(503, "the server is being stopped; ask again when it is back")
