"""What the clients of a load test ask, and what the offline pipeline answers to the same."""

import base64
import io
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from mllm.answer import TextSettings
from mllm.pictures import example_names, example_path
from mllm.pipeline import Pipeline
from mllm.serving.images import as_data_url
from unitok.image import load_image

CHAT, PICTURES = "/v1/chat/completions", "/v1/images/generations"
Kind = Literal["chat", "streamed chat", "pictures", "malformed", "slow", "leaving"]

QUESTIONS = (
    "what is in the picture?",
    "how many objects are there?",
    "what color is the object on the left?",
)
PROMPTS = ("a red star", "two blue circles", "a green heart left of a yellow square", "a ring")
MAX_NEW_TOKENS = 24
# Each is refused with one of these.
REFUSALS = (400, 404, 415)


@dataclass(frozen=True)
class Case:
    """One request with what must come of it."""

    kind: Kind
    path: str
    body: bytes
    expected: Any  # a text; the pixels of pictures; statuses of a refusal; None: nobody waits


def build_cases(pipeline: Pipeline, *, num_pictures: int = len(PROMPTS)) -> list[Case]:
    """Cases of every kind; `num_pictures` requests for pictures and as many example pictures."""
    chats = [
        build_chat(pipeline, name, question, seed=seed)
        for seed, (name, question) in enumerate(
            itertools.product(example_names()[:num_pictures], QUESTIONS)
        )
    ]
    pictures = [
        build_pictures(pipeline, prompt, seed=seed, num_images=1 + seed % 2)
        for seed, prompt in enumerate(PROMPTS[:num_pictures])
    ]
    streamed = [as_stream(chat) for chat in chats]
    leaving = [
        Case("leaving", each.path, each.body, None) for each in (*chats, *streamed, *pictures)
    ]
    slow = [Case("slow", each.path, each.body, each.expected) for each in chats]
    return [*chats, *streamed, *pictures, *slow, *leaving, *build_malformed()]


def build_chat(pipeline: Pipeline, name: str, question: str, *, seed: int) -> Case:
    """A question about an example picture; every other one is answered by chance, by its seed."""
    picture = load_image(example_path(name))
    settings = TextSettings(MAX_NEW_TOKENS, temperature=seed % 2, seed=seed)
    answer = pipeline.chat(question, image=picture, settings=settings)
    parts = [
        {"type": "image_url", "image_url": {"url": as_data_url(picture)}},
        {"type": "text", "text": question},
    ]
    body = {
        "messages": [{"role": "user", "content": parts}],
        "max_completion_tokens": MAX_NEW_TOKENS,
        "temperature": seed % 2,
        "seed": seed,
    }
    return Case("chat", CHAT, json.dumps(body).encode(), answer.text)


def as_stream(chat: Case) -> Case:
    body = {**json.loads(chat.body), "stream": True}
    return Case("streamed chat", chat.path, json.dumps(body).encode(), chat.expected)


def build_pictures(pipeline: Pipeline, prompt: str, *, seed: int, num_images: int) -> Case:
    drawn = pipeline.generate_images(prompt, num_images=num_images, seed=seed)
    body = {"prompt": prompt, "seed": seed, "n": num_images}
    return Case("pictures", PICTURES, json.dumps(body).encode(), pixels_of(drawn))


def build_malformed() -> list[Case]:
    """Requests that must be refused."""
    hello = {"messages": [{"role": "user", "content": "hello"}]}
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    chats: list[Any] = [
        {},
        {"messages": []},
        {**hello, "n": 9},
        {**hello, "model": "another"},
        {**hello, "max_tokens": 10**9},
        {"messages": [{"role": "user", "content": [broken]}]},
        {"messages": [{"role": "user", "content": "a " * 5000}]},
    ]
    bodies = [*(json.dumps(each).encode() for each in chats), b"", b"{", b"[" * 50_000, b"\xff"]
    pictures = [json.dumps({"prompt": "", "n": number}).encode() for number in (1, 10**6)]
    return [
        *(Case("malformed", CHAT, body, REFUSALS) for body in bodies),
        *(Case("malformed", PICTURES, body, REFUSALS) for body in pictures),
    ]


def pixels_of(pictures: Sequence[Image.Image]) -> list[bytes]:
    return [picture.convert("RGB").tobytes() for picture in pictures]


def read_chat(body: bytes) -> str:
    """The text of a whole answer."""
    text: str = json.loads(body)["choices"][0]["message"]["content"]
    return text


def read_stream(body: bytes) -> str:
    """The text of an answer in pieces; raises ValueError if its end is missing."""
    events = [line[6:] for line in body.decode().splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise ValueError(f"the stream ends with {events[-1:]}")
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events[:-1]]
    return "".join(delta.get("content", "") for delta in deltas)


def read_pictures(body: bytes) -> list[bytes]:
    """The pixels of all pictures."""
    encoded = [each["b64_json"] for each in json.loads(body)["data"]]
    return pixels_of([Image.open(io.BytesIO(base64.b64decode(data))) for data in encoded])
