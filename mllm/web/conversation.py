"""A person's conversation: what the model reads of it, and what the page shows of it."""

from dataclasses import dataclass, replace

from PIL import Image

from mllm.messages import Message, Part
from mllm.pipeline import Pipeline
from mllm.web.markup import render_turn
from mllm.web.turns import Canvas, Turn

MAX_SHOWN_SIDE = 768  # pixels; the codes come from the whole picture, the page shows this


@dataclass(frozen=True, eq=False)
class Conversation:
    """Belongs to one open page; every change makes a new one."""

    messages: tuple[Message, ...] = ()
    pending: Part | None = None  # the picture that goes with the next question
    drawings: tuple[Canvas, ...] = ()
    transcript: str = ""  # HTML of the turns that are over

    def with_picture(self, pipeline: Pipeline, picture: Image.Image) -> "Conversation":
        """The next question comes with `picture`, which is encoded at once."""
        part = pipeline.encode_picture(picture)
        shown = part["image"].copy()
        shown.thumbnail((MAX_SHOWN_SIDE, MAX_SHOWN_SIDE))
        return replace(self, pending={**part, "image": shown})

    def without_picture(self) -> "Conversation":
        return replace(self, pending=None)

    def after(self, turn: Turn) -> "Conversation":
        """With a turn that is over."""
        turn.view.is_running = False
        return Conversation(
            messages=(*self.messages, *turn.messages()),
            pending=None if turn.uses_pending else self.pending,
            drawings=(*self.drawings, *turn.view.pictures),
            transcript=self.transcript + render_turn(turn.view, first_drawing=len(self.drawings)),
        )
