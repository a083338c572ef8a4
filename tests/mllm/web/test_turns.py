"""Turns of a conversation, without a browser."""

import pytest
from PIL import Image

from mllm.answer import ChatAnswer, TextSettings
from mllm.drawings import DrawSettings
from mllm.engine import DrawRequest, Failed, Finished, QueueFull, RowDrawn
from mllm.progress import Cancelled
from mllm.web.conversation import Conversation
from mllm.web.jobs import JobEvent, TurnJobs
from mllm.web.markup import render_turn
from mllm.web.problems import UNEXPECTED, explain
from mllm.web.turns import ChatTurn, DrawTurn
from tests.mllm.web.scripted_engine import ScriptedEngine

GREY = Image.new("RGB", (64, 64), "grey")


def chat_turn(nano, question="what is it?", conversation=None) -> ChatTurn:
    conversation = conversation or Conversation()
    return ChatTurn(
        nano,
        question,
        picture=conversation.pending,
        history=conversation.messages,
        settings=TextSettings(),
    )


def test_an_answer_grows_with_its_pieces_and_joins_the_conversation(nano):
    turn = chat_turn(nano)
    for piece in ("a red ", "star"):
        turn.hear(JobEvent(0, piece))
    assert turn.view.text == "a red star"
    answer = {"role": "assistant", "content": "a red star"}
    turn.hear(JobEvent(0, Finished(ChatAnswer("a red star", [], [answer]))))
    conversation = Conversation().after(turn)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert "a red star" in conversation.transcript


def test_a_question_takes_the_waiting_picture_with_it(nano):
    conversation = Conversation().with_picture(nano, GREY)
    turn = chat_turn(nano, conversation=conversation)
    (request,) = turn.requests()
    assert [part["type"] for part in request.messages[-1]["content"]] == ["image", "text"]
    assert conversation.after(turn).pending is None


def test_a_drawing_leaves_the_waiting_picture_for_the_next_question(nano):
    conversation = Conversation().with_picture(nano, GREY)
    turn = DrawTurn(nano, "a star", DrawSettings())
    assert conversation.after(turn).pending is conversation.pending


def test_drawings_of_one_prompt_have_seeds_in_a_row_and_are_previewed(nano):
    turn = DrawTurn(nano, "a star", DrawSettings(num_images=3, seed=7))
    requests = turn.requests()
    assert [(each.seed, each.preview) for each in requests] == [(7, True), (8, True), (9, True)]
    assert isinstance(requests[0], DrawRequest)
    assert [canvas.notes["seed"] for canvas in turn.canvases] == [7, 8, 9]


def test_rows_and_previews_are_shown_and_a_missing_preview_keeps_the_last_one(nano):
    turn = DrawTurn(nano, "a star", DrawSettings())
    turn.hear(JobEvent(0, RowDrawn(1, 4, GREY)))
    turn.hear(JobEvent(0, RowDrawn(2, 4)))
    assert (turn.canvases[0].row, turn.canvases[0].preview) == (2, GREY)
    html = render_turn(turn.view)
    assert 'aria-valuenow="2"' in html
    assert "data:image/jpeg" in html


def test_a_finished_drawing_can_be_asked_about(nano):
    turn = DrawTurn(nano, "a star", DrawSettings(seed=3))
    turn.hear(JobEvent(0, Finished(GREY)))
    conversation = Conversation().after(turn)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    assert len(conversation.drawings) == 1
    assert 'data-action="reuse" data-number="0"' in conversation.transcript


def test_a_stopped_turn_keeps_what_is_there_but_teaches_the_model_nothing(nano):
    turn = chat_turn(nano)
    turn.hear(JobEvent(0, "a red"))
    turn.hear(JobEvent(0, Failed(Cancelled())))
    conversation = Conversation().after(turn)
    assert conversation.messages == ()
    assert "a red" in conversation.transcript
    assert "Stopped." in conversation.transcript


def test_texts_of_people_and_models_cannot_become_html(nano):
    turn = chat_turn(nano, question="<script>alert(1)</script>")
    turn.hear(JobEvent(0, "<img src=x onerror=alert(2)>"))
    html = render_turn(turn.view)
    assert "<script" not in html
    assert "<img" not in html


def test_an_error_that_nobody_at_the_page_caused_is_not_shown(caplog):
    assert explain(RuntimeError("secret /home/me/weights")) == UNEXPECTED
    assert "secret" in caplog.text


def test_requests_that_find_no_room_leave_none_of_their_turn_behind():
    engine = ScriptedEngine()
    requests = [DrawRequest("a star", seed, None) for seed in range(2)]
    jobs = TurnJobs(engine)
    jobs.submit(requests[:1])
    engine.is_full = True
    with pytest.raises(QueueFull):
        jobs.submit(requests)
    assert engine.jobs[0].is_cancelled
