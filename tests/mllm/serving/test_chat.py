"""/v1/chat/completions, asked by OpenAI's own client."""

import base64
import io

import pytest
from PIL import Image

from mllm.serving.chat import AnswerText
from tests.mllm.serving.live_server import live_server
from tests.mllm.tiny_pipeline import build_tiny_pipeline, make_model_say

EOS, BOI = 2, 3
QUESTION = "what color is the star?"


def ask(text, *pictures):
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in pictures]
    return {"role": "user", "content": [*shown, {"type": "text", "text": text}]}


def opened(image) -> Image.Image:
    _, _, data = image["image_url"]["url"].partition(",")
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def drawing_server():
    """A server whose model draws a picture between two texts."""
    pipeline = build_tiny_pipeline()
    make_model_say(pipeline, "here", BOI, "there", EOS)
    return live_server(pipeline)


def test_a_question_about_a_picture_is_answered_as_by_the_pipeline(server, nano, star):
    answer = server.openai().chat.completions.create(model="nano", messages=[ask(QUESTION, star)])
    expected = nano.chat(QUESTION, image="example:star")
    (choice,) = answer.choices
    assert choice.message.content == expected.text
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    assert answer.usage.completion_tokens == expected.num_tokens
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + expected.num_tokens


def test_a_streamed_answer_is_the_whole_one_in_pieces(server, nano, star):
    stream = server.openai().chat.completions.create(
        model="nano",
        messages=[ask("what is in the picture?", star)],
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == nano.chat("what is in the picture?", image="example:star").text
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens > 1
    assert len({chunk.id for chunk in [*chunks, last]}) == 1


def test_an_answer_that_is_cut_says_so(server, star):
    answer = server.openai().chat.completions.create(
        model="nano", messages=[ask("what is in the picture?", star)], max_completion_tokens=2
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 2


def test_a_conversation_of_several_turns_is_that_of_the_pipeline(server, nano, star):
    client = server.openai()
    messages = [ask(QUESTION, star)]
    first = client.chat.completions.create(model="nano", messages=messages)
    messages += [first.choices[0].message, ask("what shape is it?")]
    second = client.chat.completions.create(model="nano", messages=messages)
    start = nano.chat(QUESTION, image="example:star")
    expected = nano.chat("what shape is it?", history=start.messages)
    assert second.choices[0].message.content == expected.text


def test_pictures_of_an_answer_stand_in_images():
    with drawing_server() as server:
        (choice,) = (
            server.openai()
            .chat.completions.create(model="nano", messages=[ask("draw")], seed=5)
            .choices
        )
    pipeline = build_tiny_pipeline()
    make_model_say(pipeline, "here", BOI, "there", EOS)
    expected = pipeline.chat("draw", seed=5)
    assert choice.message.content == expected.text == "here there"
    (image,) = choice.message.images
    assert (image["type"], image["index"]) == ("image_url", 0)
    assert opened(image).tobytes() == expected.images[0].tobytes()


def test_pictures_of_a_streamed_answer_come_between_its_texts():
    with drawing_server() as server:
        stream = server.openai().chat.completions.create(
            model="nano", messages=[ask("draw")], seed=5, stream=True
        )
        deltas = [chunk.choices[0].delta for chunk in stream]
    kinds = ["image" if getattr(each, "images", None) else each.content for each in deltas]
    assert "".join(filter(None, kinds)) == "hereimage there"


def test_an_answer_with_a_picture_goes_back_as_it_came():
    pipeline = build_tiny_pipeline()
    make_model_say(pipeline, "here", BOI, EOS, "yes", EOS)
    with live_server(pipeline) as server:
        client = server.openai()
        first = client.chat.completions.create(model="nano", messages=[ask("draw")])
        messages = [ask("draw"), first.choices[0].message, ask("is it red?")]
        second = client.chat.completions.create(model="nano", messages=messages)
    assert second.choices[0].message.content == "yes"
    assert second.usage.prompt_tokens > first.usage.prompt_tokens + 4


def test_the_same_seed_gives_the_same_sampled_answer(server):
    def answer(seed):
        body = server.chat("what do you see?", temperature=1.5, seed=seed, max_tokens=5).json()
        assert body["seed"] == seed
        return body["choices"][0]["message"]["content"]

    assert answer(3) == answer(3)
    assert len({answer(seed) for seed in range(4)}) > 1


def test_a_system_message_is_heard_under_both_its_names(server, nano):
    texts = []
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "be brief"}, ask("what is a star?")]
        answer = server.openai().chat.completions.create(model="nano", messages=messages)
        texts.append(answer.choices[0].message.content)
    history = [{"role": "system", "content": "be brief"}]
    assert texts == [nano.chat("what is a star?", history=history).text] * 2


def test_parameters_that_change_nothing_are_taken(server):
    answer = server.openai().chat.completions.create(
        model="nano",
        messages=[ask("what is a star?")],
        n=1,
        frequency_penalty=0,
        presence_penalty=0.0,
        logprobs=False,
        tools=[],
        response_format={"type": "text"},
        user="somebody",
        stop=None,
    )
    assert answer.choices[0].message.content


@pytest.mark.parametrize(
    ("pieces", "sent"),
    [
        ([" a", " b "], ["a", " b"]),
        (["a ", "b"], ["a", " b"]),
        (["a", None, "b"], ["a", " b"]),
        ([None, " b"], ["b"]),
        (["a", " ", None, "\n"], ["a", ""]),
    ],
)
def test_pieces_add_up_to_the_stripped_text(pieces, sent):
    text = AnswerText()
    ready = [text.end_part() if piece is None else text.add(piece) for piece in pieces]
    assert [each for each in ready if each] == [each for each in sent if each]
