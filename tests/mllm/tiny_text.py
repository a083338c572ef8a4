"""A text tokenizer and a processor of test size, trained in a second."""

import itertools
import tempfile
from functools import cache

from mllm.processor import Processor
from mllm.text_tokenizer import TextTokenizer
from train.text_tokenizer import train_text_tokenizer

COLORS = ("red", "green", "blue", "black")
SHAPES = ("star", "circle", "square")
VOCAB_SIZE = 400


def tiny_lines() -> list[str]:
    return [
        f"what color is the {shape}? a {color} {shape} left of a {other} {shape}"
        for color, other, shape in itertools.product(COLORS, COLORS, SHAPES)
    ]


@cache
def tiny_tokenizer() -> TextTokenizer:
    with tempfile.TemporaryDirectory() as folder:
        return train_text_tokenizer(tiny_lines(), folder, VOCAB_SIZE)


def tiny_processor(template: str = "plain", *, context_length: int = 128) -> Processor:
    tokenizer = tiny_tokenizer()
    return Processor(
        tokenizer,
        num_visual_tokens=4,
        image_token_id=len(tokenizer),
        context_length=context_length,
        template=template,
    )
