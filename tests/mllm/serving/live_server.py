"""A server that really runs, in a thread of its own, on a port that was free."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import openai

from mllm.engine import Engine
from mllm.pipeline import Pipeline
from mllm.serving.app import build_app, build_service
from mllm.serving.options import ServerOptions
from mllm.serving.server import ModelServer, address_of, open_socket
from mllm.serving.service import Service

WAIT_SECONDS = 60


@dataclass
class LiveServer:
    """What tests talk to."""

    url: str
    service: Service
    server: ModelServer

    def openai(self, **options) -> openai.OpenAI:
        options = {"api_key": "none", "max_retries": 0, "timeout": WAIT_SECONDS, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", **options)

    def http(self, **options) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=WAIT_SECONDS, trust_env=False, **options)

    def chat(self, question: str = "what color is the star?", **changes) -> httpx.Response:
        """One question without the client in between."""
        body = {"messages": [{"role": "user", "content": question}], **changes}
        with self.http() as client:
            return client.post("/v1/chat/completions", json=body)

    def draw(self, prompt: str = "a red star", **changes) -> httpx.Response:
        with self.http() as client:
            return client.post("/v1/images/generations", json={"prompt": prompt, **changes})


@contextmanager
def live_server(
    pipeline: Pipeline, *, engine: Engine | None = None, **options
) -> Iterator[LiveServer]:
    """Runs until the block ends; `engine` stands in for a real one."""
    chosen = ServerOptions(port=0, **options)
    listening = open_socket(chosen.host, 0)
    engine = engine or Engine(pipeline, max_waiting=chosen.max_waiting)
    service = build_service(engine, chosen)
    has_started = threading.Event()
    server = ModelServer(
        build_app(service),
        service.jobs,
        drain_seconds=chosen.drain_seconds,
        on_start=has_started.set,
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    assert has_started.wait(WAIT_SECONDS)
    try:
        yield LiveServer(address_of(listening), service, server)
    finally:
        server.should_exit = True
        thread.join(WAIT_SECONDS)
        service.jobs.stop()
        engine.close()
