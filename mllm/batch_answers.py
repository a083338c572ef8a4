"""Many questions at once: left-padded rows, pictures encoded together, greedy answers.

Each answer is the text that `Pipeline.chat` gives to the same question: template, picture recipe
and ends are the same. Only, where the model begins to draw a picture, the answer ends.

Shapes: B rows, T ids, P pictures of all rows in reading order, L visual tokens, K codebooks.
"""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig

from mllm.devices import explain_out_of_memory
from mllm.generation import Progress
from mllm.messages import Message, Part
from mllm.pictures import read_pixels
from mllm.pipeline import MIN_ANSWER_TOKENS, Pipeline
from mllm.processor import Encoded, Processor
from mllm.text_tokenizer import BOI_ID, EOS_ID, UNK_ID

BATCH_REMEDY = "ask fewer questions at a time (a smaller batch size), or use dtype bfloat16"


def build_prompt(processor: Processor, messages: Sequence[Message], *, name: str) -> Encoded:
    """The row that an answer follows; its pictures are not opened yet.

    Errors, such as that of a conversation too long for the model, begin with `name`.
    """
    with errors_name(name):
        row = processor.encode_chat(messages)
        processor.check_length(row, reserve=MIN_ANSWER_TOKENS)
    return row


@contextmanager
def errors_name(name: str) -> Iterator[None]:
    """Let an error about one of many items say which."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{name}: {error}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def answer_prompts(
    pipeline: Pipeline,
    prompts: Sequence[Encoded],
    *,
    max_new_tokens: int,
    batch_size: int,
    progress: Progress | None = None,
) -> list[str]:
    """Greedy answers to rows of `build_prompt`, `batch_size` of them at a time."""
    if batch_size < 1 or max_new_tokens < 1:
        raise ValueError(
            "batch_size and max_new_tokens must be at least 1, got "
            f"{batch_size} and {max_new_tokens}"
        )
    answers: list[str] = []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        answers += answer_batch(pipeline, batch, max_new_tokens=max_new_tokens)
        if progress is not None:
            progress(len(answers), len(prompts))
    return answers


def answer_batch(
    pipeline: Pipeline, prompts: Sequence[Encoded], *, max_new_tokens: int
) -> list[str]:
    """Greedy answers to rows that are computed together.

    A row ends at eos, at begin-of-image, after `max_new_tokens`, or where the model's context does.
    """
    room_B = [min(max_new_tokens, pipeline.processor.context_length - len(row)) for row in prompts]
    config = GenerationConfig(
        max_new_tokens=max(room_B),
        do_sample=False,
        eos_token_id=[EOS_ID, BOI_ID],
        pad_token_id=UNK_ID,
    )
    model: Any = pipeline.model  # transformers types `generate` for a protocol of its own
    batch = pipeline.processor.pad(prompts, side="left")
    with torch.inference_mode(), explain_out_of_memory("answering", BATCH_REMEDY):
        ids_BT: Tensor = model.generate(
            batch.input_ids.to(pipeline.device),
            attention_mask=batch.attention_mask.to(pipeline.device),
            codes=encode_pictures(pipeline, batch.pictures),
            generation_config=config,
        )
    written_BT = ids_BT[:, batch.input_ids.shape[1] :]
    decode = pipeline.processor.tokenizer.decode
    return [decode(ids[:room]).strip() for ids, room in zip(written_BT, room_B, strict=True)]


def encode_pictures(pipeline: Pipeline, parts: Sequence[Part]) -> Tensor | None:
    """Codes (P, L, K) of picture parts; None without pictures. What has codes keeps them.

    A picture that several parts show is encoded once.
    """
    if not parts:
        return None
    fresh = {_key(part): part["image"] for part in parts if "codes" not in part}
    codes: dict[Hashable, Tensor] = {}
    if fresh:
        recipe, size = pipeline.model.config.image_recipe, pipeline.image_size
        pixels = [read_pixels(image, recipe, image_size=size)[1] for image in fresh.values()]
        encoded_PLK = pipeline.tokenizer.encode(torch.cat(pixels).to(pipeline.device))
        codes = dict(zip(fresh, encoded_PLK, strict=True))
    return torch.stack(
        [
            part["codes"].to(pipeline.device) if "codes" in part else codes[_key(part)]
            for part in parts
        ]
    )


def _key(part: Part) -> Hashable:
    """What is the same for parts that show the same picture."""
    image = part["image"]
    return id(image) if isinstance(image, Image.Image) else str(image)
