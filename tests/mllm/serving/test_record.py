"""The log says that something was asked, not what."""

import logging

import pytest

from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO)
    return caplog


def test_each_request_is_one_line_without_its_content(log):
    with live_server(build_tiny_pipeline()) as server:
        answers = [
            server.chat("my diary", max_tokens=2),
            server.chat("my diary", temperature="my diary"),
            server.draw("my diary"),
        ]
        with server.http() as client:
            answers.append(client.get("/my/diary?of=today"))
    ours = [each for each in log.records if not each.name.startswith("http")]  # not the client's
    lines = [each.getMessage() for each in ours if each.name == "mllm.serving.record"]
    assert [line.split()[:3] for line in lines] == [
        ["POST", "/v1/chat/completions", "200"],
        ["POST", "/v1/chat/completions", "400"],
        ["POST", "/v1/images/generations", "200"],
        ["GET", "other", "404"],
    ]
    assert [answer.headers["x-request-id"] for answer in answers] == [
        line.split()[-1] for line in lines
    ]
    assert not any("diary" in each.getMessage() for each in ours)
