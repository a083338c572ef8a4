"""A conversation's next turn reads only what is new, and is answered the same."""

import pytest
import torch
from PIL import Image

from mllm.answer import TextSettings
from mllm.batcher import Batcher
from mllm.pipeline import Pipeline
from mllm.prefix_store import PrefixStore, build_keys
from tests.mllm.tiny_pipeline import build_tiny_pipeline, make_model_say

EOS, BOI = 2, 3


@pytest.fixture
def pipeline() -> Pipeline:
    return build_tiny_pipeline()


def kept(length: int) -> torch.Tensor:
    return torch.arange(length).expand(1, 2, 1, length)[..., None].float()


def test_the_longest_known_beginning_is_found():
    store = PrefixStore(100)
    store.keep([1, 2, 9], kept(3))
    store.keep([1, 2, 3, 4], kept(4))
    found = store.find([1, 2, 3, 8, 9])
    assert found.shape == (1, 2, 1, 3, 1)
    assert store.find([5, 1, 2]) is None


def test_the_last_position_is_always_left_to_be_read():
    store = PrefixStore(100)
    store.keep([1, 2, 3], kept(3))
    assert store.find([1, 2, 3]).shape[3] == 2
    assert store.find([1]) is None


def test_a_conversation_takes_the_place_of_its_beginning_and_the_oldest_ones_go():
    store = PrefixStore(6)
    store.keep([1, 2], kept(2))
    store.keep([1, 2, 3], kept(3))
    assert store.num_positions == 3
    store.keep([7, 8, 9], kept(3))
    store.find([1, 2, 3, 4])  # used just now
    store.keep([4, 5], kept(2))
    assert store.find([7, 8, 9]) is None
    assert store.find([1, 2, 3, 4]).shape[3] == 3
    store.keep([6] * 7, kept(7))  # more than it may hold
    assert store.num_positions == 0


def test_pictures_count_by_their_codes():
    first, second = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 5]])
    keys = [build_keys([1, 50, 50, 7], [codes], image_token_id=50) for codes in (first, second)]
    assert keys[0] == [1, (1, 2), (3, 4), 7]
    assert keys[0][:2] == keys[1][:2]
    assert keys[0] != keys[1]


def answer(batcher: Batcher, pipeline: Pipeline, messages, **settings):
    program = pipeline.answering(
        messages, TextSettings(max_new_tokens=8, **settings), emit=lambda piece: None
    )
    (result,) = batcher.run_all([program], max_active=1)
    return result


@pytest.mark.parametrize("draws", [False, True])
def test_a_second_turn_reads_only_what_is_new_and_is_answered_the_same(pipeline, draws):
    picture = Image.linear_gradient("L").resize((48, 24)).convert("RGB")
    question = {"type": "text", "text": "what?"}
    first_turn = [{"role": "user", "content": [{"type": "image", "image": picture}, question]}]
    batcher = Batcher(pipeline.model, prefixes=PrefixStore(1000))
    lm_head = pipeline.model.lm_head
    if draws:
        make_model_say(pipeline, "a", BOI, "star", EOS)
    else:
        make_model_say(pipeline, "a red star", EOS)
    first = answer(batcher, pipeline, first_turn)
    pipeline.model.lm_head = lm_head
    num_first = len(pipeline.processor.encode_chat(first.messages))
    messages = [*first.messages, {"role": "user", "content": "left of?"}]
    num_second = len(pipeline.processor.encode_chat(messages))
    before = batcher.rows.num_positions
    second = answer(batcher, pipeline, messages)
    # The new turn, the end of the answer before it, and the new answer but for its last token.
    num_new = num_second - num_first + 1 + second.num_tokens - 1
    assert batcher.rows.num_positions - before == num_new
    assert second.text == answer(Batcher(pipeline.model), pipeline, messages).text
    assert second.text == pipeline.chat(messages, max_new_tokens=8).text


def test_another_picture_is_read_anew(pipeline):
    batcher = Batcher(pipeline.model, prefixes=PrefixStore(1000))
    texts = []
    for color in ("red", "blue"):
        content = [
            {"type": "image", "image": Image.new("RGB", (32, 32), color)},
            {"type": "text", "text": "what color?"},
        ]
        messages = [{"role": "user", "content": content}]
        texts.append(answer(batcher, pipeline, messages).text)
        assert texts[-1] == pipeline.chat(messages, max_new_tokens=8).text
    assert texts[0] != texts[1]
