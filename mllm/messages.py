"""Conversations as lists of messages: what they look like, and checks that say what is wrong."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from PIL import Image

from mllm.pictures import Picture
from mllm.text_tokenizer import clean_text

# {"role": "system" | "user" | "assistant", "content": str or a list of parts}; a part is
# {"type": "text", "text": str} or {"type": "image", ...}, whose other keys are the caller's.
Message = Mapping[str, Any]
Part = Mapping[str, Any]


def as_messages(
    question: str | Sequence[Message], image: Picture | Sequence[Picture] | None
) -> list[Message]:
    """The user's turn: pictures first, then the text."""
    if not isinstance(question, str):
        if image is not None:
            raise ValueError("pictures of whole messages belong into their parts, not into image=")
        return list(question)
    if image is None:
        image = []
    elif isinstance(image, str | PathLike | Image.Image):
        image = [image]
    parts: list[Part] = [{"type": "image", "image": picture} for picture in image]
    if question.strip() or not parts:
        parts.append({"type": "text", "text": question})
    return [{"role": "user", "content": parts}]


def split_system(messages: Sequence[Message]) -> tuple[list[Message], str | None]:
    """The turns of a conversation, checked, and its system message if it has one."""
    turns = list(messages)
    for message in turns:
        check_message(message)
    system = None
    if turns and turns[0].get("role") == "system":
        system = " ".join(clean_text(part.get("text", "")) for part in parts_of(turns.pop(0)))
    if not turns:
        raise ValueError("the conversation is empty; expected at least one message of the user")
    for number, message in enumerate(turns):
        expected = ("user", "assistant")[number % 2]
        if message.get("role") != expected:
            raise ValueError(
                f"turn {number + 1} of the conversation has the role {message.get('role')!r}, "
                f"expected {expected!r}: user and assistant take turns, the user first"
            )
        if expected == "user" and not any(is_filled(part) for part in parts_of(message)):
            raise ValueError("the question is empty; write a question or give a picture")
    return turns, system


def check_message(message: Message) -> None:
    if not isinstance(message, Mapping):
        raise ValueError(
            'a message must be {"role": ..., "content": ...}, got '
            f"{str(message)[:80]!r}; a single question is a plain text"
        )


def parts_of(message: Message) -> list[Part]:
    """The content of a message as a list of parts, checked."""
    check_message(message)
    content = message.get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, Sequence):
        raise ValueError(
            f"content of a message must be a text or a list of parts, got {type(content).__name__}"
        )
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        is_text = kind == "text" and isinstance(part.get("text"), str)
        if not is_text and kind != "image":
            raise ValueError(
                'a part of a message must be {"type": "text", "text": ...} or '
                f'{{"type": "image", ...}}, got {str(part)[:80]}'
            )
    return list(content)


def is_filled(part: Part) -> bool:
    """Whether a part says anything once its text is cleaned."""
    return part["type"] == "image" or bool(clean_text(part["text"]))
