"""The queue: who is refused, who gives up, and who waits too long."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import openai
import pytest

from mllm.serving.options import Limits
from tests.mllm.serving.held_engine import HeldEngine
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
CHAT, DRAW = "/v1/chat/completions", "/v1/images/generations"


@contextmanager
def held_server(*, max_waiting=8, **options):
    engine = HeldEngine(build_tiny_pipeline(), max_waiting=max_waiting)
    with live_server(engine.pipeline, engine=engine, max_waiting=max_waiting, **options) as server:
        yield server, engine


@pytest.fixture
def pool():
    with ThreadPoolExecutor() as pool:
        yield pool


def test_a_full_queue_says_when_to_come_back(pool):
    with held_server(max_waiting=2) as (server, engine):
        waiting = [pool.submit(server.chat) for _ in range(2)]
        engine.wait_for("held", 2)
        refused = server.draw()
        with pytest.raises(openai.RateLimitError, match="the queue is full"):
            server.openai().images.generate(prompt="a star")
        engine.release()
        assert [each.result().status_code for each in waiting] == [200, 200]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["error"]["code"] == "queue_full"


def test_as_many_requests_as_may_wait_may_be_on_their_way_in():
    with held_server(max_waiting=1) as (server, engine):
        with asking(server, CHAT, HELLO, num_bytes=-1):
            wait_until(lambda: server.chat(n=2).status_code == 429)  # else 400
            assert "on their way in already" in server.draw().json()["error"]["message"]
        engine.release()
        wait_until(lambda: server.draw().status_code == 200)


def wait_until(is_true):
    """Asks again and again, for up to half a minute."""
    for _ in range(300):
        if is_true():
            return
        time.sleep(0.1)
    raise AssertionError("it did not become true")


def test_openais_client_comes_back_by_itself():
    with held_server(max_waiting=1) as (server, engine):
        threading.Timer(1.0, engine.release).start()
        with ThreadPoolExecutor() as pool:
            asked = [
                pool.submit(server.openai(max_retries=5).images.generate, prompt="a star")
                for _ in range(2)
            ]
            assert all(each.result().data for each in asked)


def test_pictures_that_find_no_room_together_leave_none_behind():
    with held_server(max_waiting=3) as (server, engine):
        assert server.draw(n=4).status_code == 429
        engine.wait_for("ended", 3)
        engine.release()
        assert server.draw(n=3).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "num_jobs"),
    [
        (CHAT, HELLO, 1),
        (CHAT, {**HELLO, "stream": True}, 1),
        (DRAW, {"prompt": "a star", "n": 2}, 2),
    ],
    ids=("whole", "streamed", "pictures"),
)
def test_a_client_that_leaves_frees_its_place(path, body, num_jobs):
    with held_server() as (server, engine):
        with asking(server, path, body):
            engine.wait_for("held", num_jobs)
        engine.wait_for("ended", num_jobs)
        assert all(job.is_cancelled for job in engine.ended)
        assert len(server.service.jobs) == 0


@contextmanager
def asking(server, path, body, *, num_bytes=None):
    """A request, or so many bytes of its body; the client hangs up at the end of the block."""
    host, port = server.url.removeprefix("http://").split(":")
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    )
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + data[:num_bytes])
        yield


def test_an_answer_that_takes_too_long_is_ended():
    with held_server(limits=Limits(answer_seconds=0.2)) as (server, engine):
        answer = server.draw()
        engine.wait_for("ended", 1)
    assert answer.status_code == 504
    assert "took longer than 0.2 s" in answer.json()["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"


def test_a_stream_that_takes_too_long_ends_with_the_error():
    with held_server(limits=Limits(answer_seconds=0.2)) as (server, engine):
        stream = server.openai().chat.completions.create(model="nano", stream=True, **HELLO)
        seen = []
        with pytest.raises(openai.APIError, match="took longer than"):
            seen.extend(chunk.choices[0].delta.content for chunk in stream)
        engine.wait_for("ended", 1)
        assert server.openai().models.list().data


def test_an_error_of_ours_is_not_told_to_clients(caplog, monkeypatch):
    pipeline = build_tiny_pipeline()

    content = "".join(("sec", "ret"))  # so that the line below does not show it in a traceback

    def fail(*_, **__):
        raise RuntimeError(content)

    monkeypatch.setattr(pipeline, "decode", fail)
    with live_server(pipeline) as server:
        whole, streamed = server.draw("red"), server.draw("red", stream=True)
    assert whole.status_code == 500
    for answer in (whole, streamed):
        assert "the server failed to answer; its log says where" in answer.text
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
    log = [each.getMessage() for each in caplog.records if each.name == "mllm.serving.errors"]
    assert len(log) == 2
    assert all(text.startswith("RuntimeError") and "secret" not in text for text in log)
