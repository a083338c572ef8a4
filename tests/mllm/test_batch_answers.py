"""Questions asked together get the answers that they get alone, in float32."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from mllm.batch_answers import answer_prompts, build_prompt, encode_pictures
from mllm.messages import Message, as_messages
from mllm.pipeline import Pipeline
from mllm.processor import Encoded
from tests.mllm.tiny_pipeline import CONTEXT_LENGTH, build_tiny_pipeline, make_model_say

EOS, BOI = 2, 3


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> list[list[Message]]:
    """Rows of different lengths with no, one and several pictures, from memory and disk."""
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    gradient = Image.linear_gradient("L").resize((48, 24)).convert("RGB")
    gradient.save(path)
    red = Image.new("RGB", (40, 40), "red")
    return [
        as_messages("what color?", red),
        as_messages("is the red star left of the blue star or above it?", path),
        as_messages("what?", None),
        as_messages("which of the two is the star?", [red, path]),
        as_messages("what color?", gradient),
    ]


def prompts_of(pipeline: Pipeline, conversations: Sequence[list[Message]]) -> list[Encoded]:
    return [
        build_prompt(pipeline.processor, messages, name=f"question {number}")
        for number, messages in enumerate(conversations)
    ]


def test_answers_of_a_batch_are_those_of_single_chats(pipeline, conversations):
    alone = [pipeline.chat(messages, max_new_tokens=12).text for messages in conversations]
    prompts = prompts_of(pipeline, conversations)
    together = answer_prompts(pipeline, prompts, max_new_tokens=12, batch_size=5)
    by_twos = answer_prompts(pipeline, prompts, max_new_tokens=12, batch_size=2)
    assert together == by_twos == alone
    assert len(set(alone)) == len(alone)


def test_a_row_may_write_until_the_context_ends_while_shorter_ones_go_on(pipeline):
    texts = ["red star " * 30, "what?"]
    conversations = [as_messages(text, None) for text in texts]
    prompts = prompts_of(pipeline, conversations)
    room = CONTEXT_LENGTH - len(prompts[0])
    assert 16 <= room < 40 < CONTEXT_LENGTH - len(prompts[1])
    alone = [pipeline.chat(messages, max_new_tokens=40).text for messages in conversations]
    assert answer_prompts(pipeline, prompts, max_new_tokens=40, batch_size=2) == alone


def test_an_answer_ends_at_eos_and_before_a_picture_that_the_model_begins():
    pipeline = build_tiny_pipeline()
    prompts = prompts_of(pipeline, [as_messages("draw a star", None)])
    for end in (EOS, BOI):
        make_model_say(pipeline, "a red star", end, "left of")
        assert answer_prompts(pipeline, prompts, max_new_tokens=20, batch_size=1) == ["a red star"]


def test_a_picture_shown_twice_is_encoded_once(pipeline, conversations, monkeypatch):
    sizes = []
    encode = pipeline.tokenizer.encode
    monkeypatch.setattr(
        pipeline.tokenizer, "encode", lambda pixels: sizes.append(len(pixels)) or encode(pixels)
    )
    parts = [part for row in prompts_of(pipeline, conversations) for part in row.pictures]
    codes = encode_pictures(pipeline, parts)
    assert codes.shape == (5, 4, 4)
    assert sizes == [3]  # red, the file, the gradient in memory
    assert torch.equal(codes[0], codes[2])
    assert torch.equal(codes[1], codes[3])
    assert encode_pictures(pipeline, []) is None


def test_progress_counts_questions(pipeline, conversations):
    seen = []
    prompts = prompts_of(pipeline, conversations)
    answer_prompts(
        pipeline, prompts, max_new_tokens=2, batch_size=2, progress=lambda *done: seen.append(done)
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_errors_name_the_question(pipeline):
    with pytest.raises(ValueError, match=r"question 7: the prompt is \d+ tokens long, but may be"):
        build_prompt(pipeline.processor, as_messages("star " * 200, None), name="question 7")
    with pytest.raises(ValueError, match="question 8: the question is empty"):
        build_prompt(pipeline.processor, as_messages(" ", None), name="question 8")
    missing = build_prompt(pipeline.processor, as_messages("?", Path("no.png")), name="question 9")
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        answer_prompts(pipeline, [missing], max_new_tokens=2, batch_size=1)
    with pytest.raises(ValueError, match="at least 1, got 0 and 2"):
        answer_prompts(pipeline, [missing], max_new_tokens=2, batch_size=0)
