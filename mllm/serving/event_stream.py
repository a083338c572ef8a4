"""Server-sent events: answers that arrive in pieces."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

MEDIA_TYPE = "text/event-stream"
DONE = "[DONE]"


def encode_event(data: str, *, name: str | None = None) -> bytes:
    """One event; `data` has no line breaks."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {data}\n\n".encode()


class EventStream(StreamingResponse):
    """Sends objects as events; `on_end` is called once the last one is sent or nobody listens."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        events: AsyncIterator[dict[str, Any]],
        *,
        on_end: Callable[[], None],
        has_names: bool = False,
    ) -> None:
        """`has_names`: each object's `type` is its event's name, and no [DONE] ends the stream."""
        # Proxies would otherwise collect the pieces.
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(encode_events(events, has_names=has_names), headers=headers)
        self.on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.on_end()


async def encode_events(
    events: AsyncIterator[dict[str, Any]], *, has_names: bool
) -> AsyncIterator[bytes]:
    async for event in events:
        yield encode_event(json.dumps(event), name=event["type"] if has_names else None)
    if not has_names:
        yield encode_event(DONE)
