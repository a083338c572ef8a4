"""The engine's requests of one turn: submitted together, cancelled together, heard in order."""

import queue
from collections.abc import Iterator
from dataclasses import dataclass

from mllm.engine import Engine, Event, Failed, Finished, Job, Listener, QueueFull, Request

# How long nothing may happen before a turn reports that it still waits. A page that was left is
# noticed at its next report, if nothing else told of it.
HEARTBEAT_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class JobEvent:
    """What an engine told of the request number `index` of a turn."""

    index: int
    event: Event


class TurnJobs:
    """Requests in work for one turn of a conversation."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: list[Job] = []
        self._events: queue.SimpleQueue[JobEvent] = queue.SimpleQueue()

    def submit(self, requests: list[Request]) -> None:
        """Queue all requests; raises `QueueFull`, with none of them left, when there is no room."""
        for index, request in enumerate(requests):
            try:
                job = self._engine.submit(request, self._listen(index))
            except QueueFull:
                self.cancel()
                raise
            self._jobs.append(job)

    def cancel(self) -> None:
        """Give up on all that is not done yet."""
        for job in self._jobs:
            job.cancel()

    def events(self) -> Iterator[list[JobEvent]]:
        """All that happened since the last report, or nothing after a heartbeat of silence; ends
        when every request has ended."""
        num_open = len(self._jobs)
        while num_open:
            batch = self._next_batch()
            num_open -= sum(isinstance(each.event, Finished | Failed) for each in batch)
            yield batch

    def _listen(self, index: int) -> Listener:
        return lambda event: self._events.put(JobEvent(index, event))

    def _next_batch(self) -> list[JobEvent]:
        try:
            batch = [self._events.get(timeout=HEARTBEAT_SECONDS)]
        except queue.Empty:
            return []
        while not self._events.empty():
            batch.append(self._events.get_nowait())
        return batch
