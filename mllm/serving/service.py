"""What every address of the API needs, and what all of them do with a request."""

import asyncio
import secrets
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from pydantic import ValidationError
from starlette.requests import ClientDisconnect, Request

from mllm.pipeline import Pipeline
from mllm.serving.errors import ApiError, explain_validation
from mllm.serving.jobs import Jobs
from mllm.serving.metrics import Metrics
from mllm.serving.options import ServerOptions
from mllm.serving.schemas import Parameters

MAX_THREADS = 2  # that read pictures at a time; each may hold one of the largest
SEED_RANGE = 2**32  # of the seeds that are chosen for a client

T = TypeVar("T")
P = TypeVar("P", bound=Parameters)


@dataclass(frozen=True, eq=False)
class Service:
    """The model, its queue, and what the server was told."""

    pipeline: Pipeline
    jobs: Jobs
    metrics: Metrics
    options: ServerOptions
    fingerprint: str  # of the weights
    started: int = field(default_factory=lambda: int(time.time()))
    threads: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(MAX_THREADS))

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.options.model_name:
            raise ApiError(
                404,
                f"there is no model {name[:80]!r} here; this server runs "
                f"{self.options.model_name!r}",
                code="model_not_found",
                param="model",
            )

    async def in_thread(self, work: Callable[[], T]) -> T:
        """The result of work that would keep other clients waiting."""
        return await to_thread.run_sync(work, limiter=self.threads)


async def read_parameters(request: Request, schema: type[P]) -> P:
    """The checked body of a request."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        # Also what a form of another site's page can send without asking first.
        raise ApiError(415, f"send JSON as application/json, got {kind[:80] or 'no content type'}")
    body = await request.body()
    try:
        return schema.model_validate_json(body)
    except ValidationError as error:
        raise explain_validation(error) from error


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; raises `ClientDisconnect` as soon as the client has left."""
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(wait_until_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def wait_until_left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def choose_seed(seed: int | None) -> int:
    """A client's seed, or one of ours."""
    return secrets.randbelow(SEED_RANGE) if seed is None else seed
