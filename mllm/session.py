"""A conversation that goes on: remembers the turns, and pictures for the next question."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from PIL import Image

from mllm.answer import Piece, TextSettings
from mllm.messages import Message, Part, parts_of
from mllm.pictures import Picture
from mllm.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class SessionDrawing:
    """A picture that the model drew, and what it was asked."""

    picture: Image.Image
    question: str


class ChatSession:
    """Asks a pipeline question after question; an answer that fails or is broken off leaves the
    conversation as it was."""

    def __init__(self, pipeline: Pipeline, settings: TextSettings | None = None) -> None:
        self.pipeline = pipeline
        self.settings = settings or TextSettings()
        self.messages: list[Message] = []
        self.pending: list[Part] = []  # pictures that the next question shows
        self.notice: str | None = None  # of the last answer, if something kept it from a picture

    def add_picture(self, picture: Picture) -> None:
        """Show a picture with the next question; it is read at once."""
        self.pending.append(self.pipeline.encode_picture(picture))

    def ask(self, question: str) -> Iterator[Piece]:
        """Texts and pictures of the answer while they are made."""
        parts = [*self.pending, {"type": "text", "text": question}]
        turn: Message = {"role": "user", "content": parts}
        stream = self.pipeline.stream_chat([turn], history=self.messages, settings=self.settings)
        yield from stream
        self.messages = stream.answer.messages
        self.notice = stream.answer.notice
        self.pending = []

    def reset(self) -> None:
        """Forget everything that was said and shown."""
        self.messages = []
        self.pending = []

    def last_drawing(self) -> SessionDrawing | None:
        """The picture that the model drew last."""
        for question, answer in reversed(list(pairwise(self.messages))):
            drawn = [part["image"] for part in parts_of(answer) if part["type"] == "image"]
            if answer["role"] == "assistant" and drawn:
                texts = [part["text"] for part in parts_of(question) if part["type"] == "text"]
                return SessionDrawing(drawn[-1], " ".join(texts))
        return None

    def transcript(self) -> str:
        """The conversation as plain text."""
        lines = []
        for message in self.messages:
            texts = [
                part["text"] if part["type"] == "text" else "[picture]"
                for part in parts_of(message)
            ]
            lines.append(f"{message['role']}: {' '.join(texts)}")
        return "\n".join(lines) + "\n"
