"""What a connection may take: bytes of a body, seconds to hand it in, seconds to take an answer."""

import asyncio

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm.serving.errors import ApiError
from mllm.serving.options import Limits


class ConnectionLimits:
    """Middleware that counts and times what passes by."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self.app = app
        self.limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        check_body_size(declared_size(Headers(scope=scope)), self.limits)
        upload = Upload(receive, self.limits)
        await self.app(scope, upload.receive, self._timed(send))

    def _timed(self, send: Send) -> Send:
        async def timed(message: Message) -> None:
            try:
                async with asyncio.timeout(self.limits.send_seconds):
                    await send(message)
            except TimeoutError as error:  # a reader who takes nothing is as good as gone
                raise ClientDisconnect from error

        return timed


class Upload:
    """The body of one request on its way in."""

    def __init__(self, receive: Receive, limits: Limits) -> None:
        self._receive = receive
        self._limits = limits
        self._size = 0
        self._is_complete = False
        self._deadline = asyncio.get_running_loop().time() + limits.upload_seconds

    async def receive(self) -> Message:
        if self._is_complete:  # what may come now is that the client leaves
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            seconds = self._limits.upload_seconds
            raise ApiError(
                408, f"the request was not complete after {seconds:g} s; send it faster"
            ) from error
        self._size += len(message.get("body", b""))
        check_body_size(self._size, self._limits)
        self._is_complete = not message.get("more_body", False)
        return message


def declared_size(headers: Headers) -> int:
    """Bytes that the client says it will send; 0 if it does not say."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() else 0


def check_body_size(num_bytes: int, limits: Limits) -> None:
    if num_bytes > limits.body_bytes:
        raise ApiError(
            413,
            f"a request may be {limits.body_bytes} bytes long, got {num_bytes} or more; send "
            "smaller pictures",
        )
