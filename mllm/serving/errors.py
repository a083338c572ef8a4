"""Errors in the form that OpenAI's clients read, and the one place that answers with them."""

import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mllm.serving.event_stream import MEDIA_TYPE, encode_event

logger = logging.getLogger(__name__)

KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
CLIENT_GONE = 499  # what proxies log; nobody is there to read it
MAX_NAME = 80  # characters of what a client wrote that a message repeats
PLAIN_TYPES = (str, int, float, bool, type(None))


class ApiError(Exception):
    """What a client is told in place of an answer: a status and one sentence."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        error = {
            "message": str(self),
            "type": KINDS.get(self.status, kind),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def build_response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


@contextmanager
def blame_client() -> Iterator[None]:
    """ValueErrors within are about what the client sent."""
    try:
        yield
    except ValueError as error:
        raise ApiError(400, str(error)) from error


def explain_validation(error: ValidationError) -> ApiError:
    """The first thing that is wrong with a request, as one sentence."""
    first = error.errors(include_url=False)[0]
    kind, context = first["type"], first.get("ctx", {})
    if kind == "json_invalid":
        return ApiError(400, f"the body is no valid JSON: {context.get('error')}")
    name = ".".join(str(each) for each in first["loc"])[:MAX_NAME]
    if kind == "extra_forbidden":
        message = f"there is no parameter {name}; check its spelling or leave it out"
    elif kind == "value_error":
        message = str(context["error"])
    else:
        given = first["input"]
        shown = f", got {str(given)[:MAX_NAME]!r}" if isinstance(given, PLAIN_TYPES) else ""
        message = f"{name or 'the body'}: {first['msg'][:1].lower()}{first['msg'][1:]}{shown}"
    return ApiError(400, message, param=name or None)


def explain_http(error: HTTPException) -> ApiError:
    """What is said about unknown addresses and methods."""
    sentences = {
        404: "there is nothing at this address; the API begins with /v1",
        405: "this address takes another method",
    }
    return ApiError(error.status_code, sentences.get(error.status_code, str(error.detail)))


def as_api_error(error: Exception) -> ApiError:
    """What a client is told about any error; one that is not the client's is logged.

    The log names where it happened, not the error's own message: that may quote the request.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, ClientDisconnect):
        return ApiError(CLIENT_GONE, "the client has left")
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s\n%s", type(error).__name__, where)
    return ApiError(500, "the server failed to answer; its log says where")


class ErrorAnswers:
    """Middleware that turns every error into an answer; clients see no traceback.

    Once an event stream has begun, the error is its last event.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started: Message | None = None

        async def watch(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:  # the server's single handler
            told = as_api_error(error)
            if told.status == CLIENT_GONE and started is not None:
                return
            if started is None:
                await told.build_response()(scope, receive, send)
            elif is_event_stream(started):
                last = encode_event(json.dumps(told.body))
                await send({"type": "http.response.body", "body": last, "more_body": False})
            else:
                raise


def is_event_stream(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type", "").startswith(MEDIA_TYPE)
