"""Answers are as likely as the model's own steps say, whatever they are batched with."""

import math

import pytest
import torch
from PIL import Image

from mllm.batch_answers import encode_pictures
from mllm.likelihood import Likelihood, build_answered, measure_answers
from mllm.messages import as_messages
from mllm.pipeline import Pipeline
from mllm.processor import IGNORED_LABEL, Encoded
from tests.mllm.tiny_pipeline import build_tiny_pipeline

RED = Image.new("RGB", (40, 40), "red")
GRADIENT = Image.linear_gradient("L").convert("RGB")
EOS = 2


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


def stepwise(pipeline: Pipeline, messages: list, answer: str) -> float:
    """The sum of log-probabilities, each from a pass of its own over what stands before."""
    processor = pipeline.processor
    prompt = processor.encode_chat(messages)
    ids = prompt.input_ids.tolist()
    codes = encode_pictures(pipeline, prompt.pictures)
    total = 0.0
    for target in [*processor.tokenizer.encode(answer), EOS]:
        with torch.no_grad():
            logits = pipeline.model(torch.tensor([ids]), codes).logits[0, -1]
        total += float(logits.double().log_softmax(dim=-1)[target])
        ids.append(target)
    return total


def test_log_probabilities_equal_those_of_single_steps(pipeline):
    asked = [
        (as_messages("what color?", RED), "red"),
        (as_messages("is the red star left of the blue star?", [GRADIENT, RED]), "a red star"),
        (as_messages("what color?", None), "blue circle left of a black star"),
        (as_messages("what color?", RED), ""),
    ]
    rows = [build_answered(pipeline.processor, *each, name="item") for each in asked]
    found = measure_answers(pipeline, rows, batch_size=3)
    for (messages, answer), likelihood in zip(asked, found, strict=True):
        # Measured: 4e-8 of sums between -9 and -56.
        expected = stepwise(pipeline, messages, answer)
        assert likelihood.log_probability == pytest.approx(expected, rel=1e-6)
        assert likelihood.num_tokens == len(pipeline.processor.tokenizer.encode(answer)) + 1


def with_answer(prompt: Encoded, ids: list[int]) -> Encoded:
    """A prompt that any ids answer, even some that no text has."""
    answer = torch.tensor(ids, dtype=torch.int64)
    labels = torch.full_like(prompt.input_ids, IGNORED_LABEL)
    return Encoded(
        torch.cat([prompt.input_ids, answer]), torch.cat([labels, answer]), prompt.pictures
    )


def test_probabilities_of_all_next_tokens_add_up_to_one(pipeline):
    prompt = pipeline.processor.encode_chat(as_messages("what?", RED))
    rows = [with_answer(prompt, [token]) for token in range(len(pipeline.processor.tokenizer))]
    found = measure_answers(pipeline, rows, batch_size=100)
    assert sum(math.exp(each.log_probability) for each in found) == pytest.approx(1, abs=1e-5)
    assert sum(each.is_greedy for each in found) == 1


def test_what_the_model_writes_is_greedy_and_anything_else_is_not(pipeline):
    messages = as_messages("what color?", RED)
    prompt = pipeline.processor.encode_chat(messages)
    ids: list[int] = []
    for _ in range(3):
        row = with_answer(prompt, ids)
        with torch.no_grad():
            codes = encode_pictures(pipeline, row.pictures)
            ids.append(int(pipeline.model(row.input_ids[None], codes).logits[0, -1].argmax()))
    other = [*ids[:2], (ids[2] + 1) % len(pipeline.processor.tokenizer)]
    rows = [with_answer(prompt, ids), with_answer(prompt, other), with_answer(prompt, ids[:1])]
    found = measure_answers(pipeline, rows, batch_size=3)
    assert [each.is_greedy for each in found] == [True, False, True]
    assert found[0].log_probability > found[1].log_probability


def test_only_the_last_answer_of_a_conversation_counts(pipeline):
    earlier = [
        *as_messages("what color?", RED),
        {"role": "assistant", "content": "a red star left of a blue star"},
        {"role": "user", "content": "and now?"},
    ]
    [found] = measure_answers(
        pipeline, [build_answered(pipeline.processor, earlier, "red", name="item")], batch_size=1
    )
    assert found.num_tokens == 2
    assert found.log_probability == pytest.approx(stepwise(pipeline, earlier, "red"), rel=1e-6)


def test_the_mean_loss_is_per_token():
    assert Likelihood(-6.0, 3, False).mean_loss == 2.0


def test_errors_name_the_item(pipeline):
    with pytest.raises(ValueError, match=r"option B of 5: the prompt is \d+ tokens long"):
        build_answered(
            pipeline.processor, as_messages("?", None), "star " * 200, name="option B of 5"
        )
