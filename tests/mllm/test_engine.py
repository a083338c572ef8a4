"""Many callers of one model."""

import queue

import pytest
from PIL import Image

from mllm.answer import ChatAnswer, TextSettings
from mllm.engine import ChatRequest, DrawRequest, Engine, Failed, Finished, RowDrawn
from mllm.pipeline import Pipeline
from mllm.progress import Cancelled


@pytest.fixture(scope="module")
def nano() -> Pipeline:
    return Pipeline.from_pretrained("nano")


@pytest.fixture
def engine(nano):
    engine = Engine(nano)
    yield engine
    engine.close()


def wait(events: "queue.Queue") -> list:
    """All events of a request, in order."""
    seen = []
    while not seen or not isinstance(seen[-1], Finished | Failed):
        seen.append(events.get(timeout=60))
    return seen


def test_a_picture_comes_row_by_row_and_is_that_of_the_pipeline(engine, nano):
    events: queue.Queue = queue.Queue()
    engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), events.put)
    *rows, finished = wait(events)
    assert [(row.row, row.num_rows) for row in rows if isinstance(row, RowDrawn)] == [
        (1, 4),
        (2, 4),
        (3, 4),
        (4, 4),
    ]
    (expected,) = nano.generate_images("a red star", num_images=1, seed=3)
    assert isinstance(finished.result, Image.Image)
    assert finished.result.tobytes() == expected.tobytes()


def test_an_answer_comes_in_pieces_and_is_that_of_the_pipeline(engine, nano):
    messages = [
        {
            "role": "user",
            "content": [
                {"type": "image", "image": "example:pair"},
                {"type": "text", "text": "what is in the picture?"},
            ],
        }
    ]
    events: queue.Queue = queue.Queue()
    engine.submit(ChatRequest(messages, TextSettings()), events.put)
    *pieces, finished = wait(events)
    assert isinstance(finished.result, ChatAnswer)
    assert finished.result.text == nano.chat(messages).text
    assert "".join(pieces).strip() == finished.result.text


def test_a_cancelled_request_ends_as_cancelled(engine, nano):
    events: queue.Queue = queue.Queue()
    job = engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), events.put)
    job.cancel()
    assert isinstance(wait(events)[-1].error, Cancelled)


def test_a_wrong_request_fails_alone(engine, nano):
    events: queue.Queue = queue.Queue()
    engine.submit(DrawRequest(" ", 0, nano.build_sampling()), events.put)
    assert isinstance(wait(events)[-1].error, ValueError)
    engine.submit(DrawRequest("a red star", 0, nano.build_sampling()), events.put)
    assert isinstance(wait(events)[-1], Finished)
