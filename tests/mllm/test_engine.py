"""Many callers of one model."""

import queue

import pytest
from PIL import Image

from mllm.answer import ChatAnswer, TextSettings
from mllm.engine import (
    ChatRequest,
    DrawRequest,
    Engine,
    Failed,
    Finished,
    QueueFull,
    RowDrawn,
)
from mllm.pipeline import UNDRAWN, Pipeline
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


def ask(question: str, example: str) -> list:
    """The messages of a question about an example picture."""
    picture = {"type": "image", "image": f"example:{example}"}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]


def test_an_answer_comes_in_pieces_and_is_that_of_the_pipeline(engine, nano):
    messages = ask("what is in the picture?", "pair")
    events: queue.Queue = queue.Queue()
    engine.submit(ChatRequest(messages, TextSettings()), events.put)
    *pieces, finished = wait(events)
    assert isinstance(finished.result, ChatAnswer)
    assert finished.result.text == nano.chat(messages).text
    assert "".join(pieces).strip() == finished.result.text


def test_the_next_turn_of_a_chat_reads_only_what_is_new(engine, nano):
    events: queue.Queue = queue.Queue()
    engine.submit(ChatRequest(ask("what is in the picture?", "pair"), TextSettings()), events.put)
    first = wait(events)[-1].result
    messages = [*first.messages, {"role": "user", "content": "how many objects are there?"}]
    rows = engine._batcher.rows
    before = rows.num_positions
    engine.submit(ChatRequest(messages, TextSettings()), events.put)
    second = wait(events)[-1].result
    num_whole = len(nano.processor.encode_chat(messages))
    num_new = rows.num_positions - before - (second.num_tokens - 1)
    assert num_new <= num_whole - len(nano.processor.encode_chat(first.messages)) + 1
    assert second.text == nano.chat(messages).text


def test_a_cancelled_request_ends_as_cancelled(engine, nano):
    events: queue.Queue = queue.Queue()
    job = engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), events.put)
    job.cancel()
    assert isinstance(wait(events)[-1].error, Cancelled)


def test_a_cancelled_request_frees_its_place_within_one_step(nano):
    engine = Engine(nano, max_active=1)
    first, second = queue.Queue(), queue.Queue()
    job = engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), first.put)
    engine.submit(DrawRequest("a blue ring", 4, nano.build_sampling()), second.put)
    assert isinstance(first.get(timeout=60), RowDrawn)
    job.cancel()
    *rows, last = wait(first)
    assert isinstance(last.error, Cancelled)
    assert len(rows) <= 1  # at most the row of the step that was under way
    assert isinstance(wait(second)[-1], Finished)
    engine.close()


def test_a_request_that_waits_is_cancelled_and_leaves_the_queue(nano):
    engine = Engine(nano, max_active=1)
    events = [queue.Queue() for _ in range(2)]
    jobs = [
        engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), each.put)
        for each in events
    ]
    jobs[1].cancel()
    assert isinstance(wait(events[1])[-1].error, Cancelled)
    assert isinstance(wait(events[0])[-1], Finished)
    engine.close()


def test_requests_of_both_kinds_side_by_side_give_what_each_gives_alone(engine, nano):
    chats = [ask("what is in the picture?", "pair"), ask("how many objects?", "rings")]
    prompts = ["a red star", "three green hearts"]
    sampling = nano.build_sampling()
    requests = [ChatRequest(chat, TextSettings()) for chat in chats]
    requests += [DrawRequest(prompt, seed, sampling) for seed, prompt in enumerate(prompts)]
    events = [queue.Queue() for _ in requests]
    for request, own in zip(requests, events, strict=True):
        engine.submit(request, own.put)
    results = [wait(own)[-1].result for own in events]
    assert [result.text for result in results[:2]] == [nano.chat(chat).text for chat in chats]
    for seed, (picture, prompt) in enumerate(zip(results[2:], prompts, strict=True)):
        (expected,) = nano.generate_images(prompt, num_images=1, seed=seed)
        assert picture.tobytes() == expected.tobytes()


def test_a_preview_shows_the_rows_that_are_there(engine, nano):
    events: queue.Queue = queue.Queue()
    engine.submit(DrawRequest("a red star", 3, nano.build_sampling(), preview=True), events.put)
    *rows, finished = wait(events)
    size = nano.image_size
    for row in rows[:-1]:
        below = row.preview.crop((0, row.row * size // 4, size, size))
        assert below.getcolors() == [(below.width * below.height, UNDRAWN)]
        drawn = row.preview.crop((0, 0, size, row.row * size // 4))
        assert UNDRAWN not in [color for _, color in drawn.getcolors(size * size)]
    assert rows[-1].preview.tobytes() == finished.result.tobytes()


def test_a_full_queue_refuses_and_a_closed_engine_too(nano):
    engine = Engine(nano, max_active=1, max_waiting=1)
    events: queue.Queue = queue.Queue()
    request = DrawRequest("a red star", 3, nano.build_sampling())
    engine.submit(request, events.put)
    assert isinstance(events.get(timeout=60), RowDrawn)  # the first one is in work
    engine.submit(request, events.put)
    with pytest.raises(QueueFull, match="1 requests wait already"):
        engine.submit(request, events.put)
    engine.close()
    assert isinstance(wait(events)[-1], Finished)  # what was handed in is finished
    with pytest.raises(RuntimeError, match="the engine is closed"):
        engine.submit(request, events.put)


def test_a_listener_that_fails_ends_only_its_own_request(engine, nano):
    def broken(event):
        raise ConnectionError("nobody listens")

    events: queue.Queue = queue.Queue()
    engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), broken)
    engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), events.put)
    assert isinstance(wait(events)[-1], Finished)


def test_a_step_that_fails_is_told_to_all_and_the_engine_goes_on(engine, nano, monkeypatch):
    events: queue.Queue = queue.Queue()
    with monkeypatch.context() as patch:
        patch.setattr(nano.model.visual_head, "generate", lambda *_, **__: 1 / 0)
        engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), events.put)
        assert isinstance(wait(events)[-1].error, ZeroDivisionError)
    engine.submit(DrawRequest("a red star", 3, nano.build_sampling()), events.put)
    assert isinstance(wait(events)[-1], Finished)


def test_a_wrong_request_fails_alone(engine, nano):
    events: queue.Queue = queue.Queue()
    engine.submit(DrawRequest(" ", 0, nano.build_sampling()), events.put)
    assert isinstance(wait(events)[-1].error, ValueError)
    engine.submit(DrawRequest("a red star", 0, nano.build_sampling()), events.put)
    assert isinstance(wait(events)[-1], Finished)
