"""What a connection may take."""

import socket
import time

from mllm.serving.options import Limits
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline

LIMITS = Limits(body_bytes=10_000, upload_seconds=0.3)


def talk(server, *parts: bytes) -> bytes:
    """All that the server answers to raw bytes."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def head(size: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    lines = (b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Content-Type: application/json")
    return b"\r\n".join([*lines, size, b"", b""])


def test_a_body_that_says_it_is_too_long_is_refused_unread():
    with live_server(build_tiny_pipeline(), limits=LIMITS) as server:
        answer = server.chat("a" * 20_000)
    assert answer.status_code == 413
    assert "a request may be 10000 bytes long" in answer.json()["error"]["message"]


def test_a_body_that_does_not_say_how_long_it_is_is_counted():
    chunk = b"1000\r\n" + b"a" * 4096 + b"\r\n"
    with live_server(build_tiny_pipeline(), limits=LIMITS) as server:
        answer = talk(server, head(b"Transfer-Encoding: chunked"), chunk, chunk, chunk)
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_too_slowly_is_refused():
    with live_server(build_tiny_pipeline(), limits=LIMITS) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(head(b"Content-Length: 100") + b"{")
            started = time.monotonic()
            assert connection.recv(65536).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - started < 10


def test_bytes_that_are_no_http_do_not_disturb_others():
    with live_server(build_tiny_pipeline(), limits=LIMITS) as server:
        assert b" 400 " in talk(server, b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert b" 400 " in talk(server, head(b"X: " + b"a" * 100_000))
        with server.http() as client:
            assert client.get("/health").status_code == 200
