"""Running the application: a socket, a loop, and an end that leaves nobody without an answer."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

import uvicorn
from fastapi import FastAPI

from mllm.engine import Engine
from mllm.pipeline import Pipeline
from mllm.serving.app import build_app, build_service
from mllm.serving.jobs import Jobs
from mllm.serving.options import ServerOptions

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 512
MAX_CONNECTIONS = 1024
KEEP_ALIVE_SECONDS = 30
ANSWER_SECONDS = 5  # for the refusals themselves, once the time to drain is over


class ModelServer(uvicorn.Server):
    """Told to stop, it takes no new requests, lets those in work end, and refuses what is left.

    A second Ctrl-C waits for nobody.
    """

    def __init__(
        self,
        app: FastAPI,
        jobs: Jobs,
        *,
        drain_seconds: float,
        on_start: Callable[[], None] = lambda: None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_config=None,
            access_log=False,  # it would show what stands behind a question mark
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=round(drain_seconds) + ANSWER_SECONDS,
        )
        super().__init__(config)
        self.jobs = jobs
        self.drain_seconds = drain_seconds
        self.on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        timer = asyncio.get_running_loop().call_later(self.drain_seconds, self.jobs.stop)
        await super().shutdown(sockets)
        timer.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a signal that was heeded is not raised again: the exit code is 0."""
        if current_thread() is not main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in SIGNALS}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens; raises OSError with the address if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def address_of(listening: socket.socket) -> str:
    """Where a browser on this machine finds the server."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(pipeline: Pipeline, options: ServerOptions, announce: Callable[[str], None]) -> None:
    """Answer until a signal says stop; `announce` is told where the server listens."""
    log_requests()
    listening = open_socket(options.host, options.port)
    engine = Engine(pipeline, max_waiting=options.max_waiting)
    service = build_service(engine, options)
    server = ModelServer(
        build_app(service),
        service.jobs,
        drain_seconds=options.drain_seconds,
        on_start=lambda: announce(describe_start(options, address_of(listening))),
    )
    try:
        server.run(sockets=[listening])
    finally:
        service.jobs.stop()
        engine.close()
    announce("stopped")


def describe_start(options: ServerOptions, address: str) -> str:
    page = f"; the page is at {address}" if options.has_page else ""
    return f"{options.model_name} answers at {address}/v1{page}"


def log_requests() -> None:
    """A line on stderr for each request and each failure."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("mllm.serving")
    log.handlers = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False
