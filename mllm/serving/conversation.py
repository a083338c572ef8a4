"""From a client's messages to the pipeline's: pictures are read, lengths are checked."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from mllm.messages import Message
from mllm.pipeline import MIN_ANSWER_TOKENS, Pipeline
from mllm.serving.images import read_data_url, read_picture, shrink
from mllm.serving.options import Limits, ServerOptions
from mllm.serving.remote import fetch_picture
from mllm.serving.schemas import Answer, ChatMessage, ImagePart, Part, TextPart

WEB_ADDRESS = re.compile(r"https?:", re.IGNORECASE)
ROLES = {"developer": "system"}  # others are called the same


@dataclass(frozen=True, eq=False)
class Conversation:
    """Messages that the model can go on from."""

    messages: list[Message]
    num_tokens: int  # pictures included


def parts_of(message: ChatMessage) -> list[Part]:
    """All that a message says and shows; pictures of an earlier answer follow its text."""
    images = message.images if isinstance(message, Answer) else None
    return [*(message.content or []), *(images or [])]


def check_amounts(messages: Sequence[ChatMessage], limits: Limits) -> None:
    """Raise ValueError for more than a request may hold."""
    parts = [part for message in messages for part in parts_of(message)]
    for part in parts:
        if isinstance(part, TextPart):
            check_text(part.text, limits)
    num_images = sum(isinstance(part, ImagePart) for part in parts)
    if num_images > limits.images:
        raise ValueError(
            f"a conversation may show {limits.images} pictures, got {num_images}; start a new one"
        )


def check_text(text: str, limits: Limits) -> None:
    if len(text) > limits.text_characters:
        raise ValueError(
            f"a text may be {limits.text_characters} characters long, got {len(text)}; shorten it"
        )


async def fetch_pictures(
    messages: Sequence[ChatMessage], options: ServerOptions
) -> dict[str, bytes]:
    """The files of the pictures that are named by their web address."""
    urls = {
        part.image_url.url: None  # in order, and each once
        for message in messages
        for part in parts_of(message)
        if isinstance(part, ImagePart) and WEB_ADDRESS.match(part.image_url.url)
    }
    if urls and not options.fetch_images:
        raise ValueError(
            "this server fetches no pictures; send the picture itself, as a data URL such as "
            "data:image/png;base64,..."
        )
    files = await asyncio.gather(*(fetch_picture(url, options.limits) for url in urls))
    return dict(zip(urls, files, strict=True))


def read_conversation(
    messages: Sequence[ChatMessage],
    pipeline: Pipeline,
    *,
    fetched: Mapping[str, bytes],
    limits: Limits,
) -> Conversation:
    """The conversation with its pictures; ValueErrors say what is wrong with it."""

    def read(part: Part) -> dict[str, object]:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        url = part.image_url.url
        file = fetched.get(url)
        picture = read_data_url(url, limits) if file is None else read_picture(file, limits)
        return {"type": "image", "image": fit(picture, pipeline)}

    turns: list[Message] = [
        {
            "role": ROLES.get(message.role, message.role),
            "content": [read(part) for part in parts_of(message)],
        }
        for message in messages
    ]
    row = pipeline.processor.encode_chat(turns)
    pipeline.processor.check_length(row, reserve=MIN_ANSWER_TOKENS)
    return Conversation(turns, len(row))


def fit(picture: Image.Image, pipeline: Pipeline) -> Image.Image:
    recipe = pipeline.model.config.image_recipe
    return shrink(picture, recipe, image_size=pipeline.image_size)
