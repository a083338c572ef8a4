"""An engine that does only what a test tells it to."""

import time

from mllm.engine import Event, Failed, Job, Listener, QueueFull, Request
from mllm.progress import Cancelled


class ScriptedJob(Job):
    """Ends as cancelled at once, as a quick engine would."""

    def cancel(self) -> None:
        if not self.is_cancelled:
            super().cancel()
            self.listener(Failed(Cancelled()))

    def wait_until_cancelled(self, seconds: float) -> bool:
        return self._cancelled.wait(seconds)


class ScriptedEngine:
    """Keeps what is submitted; the test sends the events."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.is_full = False

    def submit(self, request: Request, listener: Listener) -> Job:
        if self.is_full:
            raise QueueFull("64 requests wait already; try later")
        self.jobs.append(ScriptedJob(request, listener))
        return self.jobs[-1]

    def wait_for_jobs(self, count: int) -> list[Job]:
        """The jobs, once there are `count` of them."""
        deadline = time.monotonic() + 20
        while len(self.jobs) < count:
            assert time.monotonic() < deadline, f"{len(self.jobs)} requests came, not {count}"
            time.sleep(0.02)
        return self.jobs

    def tell(self, index: int, *events: Event) -> None:
        for event in events:
            self.jobs[index].listener(event)
