"""What of Gradio's own interface the page needs; all else is closed.

Gradio also serves files, takes uploads, fetches addresses for a client and offers functions to
programs. The page uses none of that: pictures travel inside its events.
"""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

INTERFACE = "/gradio_api/"
OPEN = ("queue/join", "queue/data", "heartbeat/", "startup-events", "theme.css")


class InterfaceGuard:
    """Answers 404 to whatever the page at `path` does not ask for itself."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self.app = app
        self.prefix = path.rstrip("/") + INTERFACE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and self._is_closed(scope["path"]):
            await PlainTextResponse("Not found", status_code=404)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _is_closed(self, path: str) -> bool:
        _, mark, rest = path.partition(self.prefix)
        return bool(mark) and not rest.startswith(OPEN)
