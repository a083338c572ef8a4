"""An engine that works only when a test lets it, so that tests need not wait or hurry."""

import threading

from PIL import Image

from mllm.answer import ChatAnswer
from mllm.engine import ChatRequest, Failed, Finished, Job, QueueFull, RowDrawn
from mllm.progress import Cancelled

STEP_SECONDS = 0.005


class HeldEngine:
    """Holds every request until `release`; a cancelled one ends at the next step."""

    def __init__(self, pipeline, *, max_waiting: int = 8) -> None:
        self.pipeline = pipeline
        self.max_waiting = max_waiting
        self.held: list[Job] = []
        self.ended: list[Job] = []
        self._is_released = threading.Event()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def num_waiting(self) -> int:
        return len(self.held)

    def submit(self, request, listener) -> Job:
        if len(self.held) >= self.max_waiting:
            raise QueueFull(f"{self.max_waiting} requests wait already; try later")
        job = Job(request, listener)
        if isinstance(request, ChatRequest):
            listener("a piece")
        elif request.preview:
            for row in (1, 2):
                listener(RowDrawn(row, 2, Image.new("RGB", (32, 32), (0, 0, row))))
        self.held.append(job)
        return job

    def release(self) -> None:
        self._is_released.set()

    def close(self) -> None:
        self._is_closed.set()
        self._thread.join()

    def wait_for(self, what: str, number: int) -> None:
        """Until so many jobs are `held` or `ended`."""
        for _ in range(4000):
            if len(getattr(self, what)) == number:
                return
            self._is_closed.wait(STEP_SECONDS)
        raise AssertionError(f"{len(getattr(self, what))} jobs are {what}, expected {number}")

    def _work(self) -> None:
        while not self._is_closed.wait(STEP_SECONDS):
            for job in list(self.held):
                if job.is_cancelled:
                    self._end(job, Failed(Cancelled()))
                elif self._is_released.is_set():
                    self._end(job, Finished(self._result(job)))

    def _end(self, job: Job, event) -> None:
        self.held.remove(job)
        self.ended.append(job)
        job.listener(event)

    def _result(self, job: Job):
        if isinstance(job.request, ChatRequest):
            return ChatAnswer("a piece", [], [], num_tokens=2)
        return Image.new("RGB", (32, 32))
