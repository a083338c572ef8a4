"""A line in the log and a number in the metrics for each request, without what it says."""

import logging
import secrets
import time
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm.serving.metrics import Metrics

OTHER = "other"
NO_STATUS = 0  # nothing was answered

logger = logging.getLogger(__name__)


class Record:
    """Middleware that notes address, status and time; unknown addresses are all called `other`."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: Collection[str]) -> None:
        self.app = app
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        status = NO_STATUS
        started = time.monotonic()

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self.app(scope, receive, watch)
        finally:
            seconds = time.monotonic() - started
            path = scope["path"] if scope["path"] in self.paths else OTHER
            self.metrics.count_request(path, status, seconds=seconds)
            logger.info("%s %s %d %.3f s %s", scope["method"], path, status, seconds, request_id)
