"""One turn of a conversation while it is made: a question and its answer, or a prompt and its
drawings.

A turn turns the engine's events into a view, which the page shows again after each of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from PIL import Image

from mllm.answer import TextSettings
from mllm.drawings import DrawSettings, build_notes
from mllm.engine import (
    ChatRequest,
    DrawRequest,
    Engine,
    Event,
    Failed,
    Finished,
    Request,
    RowDrawn,
)
from mllm.messages import Message, Part
from mllm.pipeline import Pipeline
from mllm.web.jobs import JobEvent, TurnJobs
from mllm.web.problems import explain

Notes: TypeAlias = dict[str, object]


@dataclass(eq=False)
class Canvas:
    """A picture in the making, and once it is made."""

    title: str  # what was asked for
    seed: int
    notes: Notes  # what drawing it again takes
    num_rows: int
    row: int = 0  # rows that are there
    preview: Image.Image | None = None
    picture: Image.Image | None = None


@dataclass(eq=False)
class TurnView:
    """What a page shows of a turn."""

    question: str
    shown: Image.Image | None = None  # the picture that the question came with
    parts: list[str | Canvas] = field(default_factory=list)
    problem: str | None = None
    is_running: bool = True

    @property
    def pictures(self) -> list[Canvas]:
        """The drawings that are there."""
        return [
            part for part in self.parts if isinstance(part, Canvas) and part.picture is not None
        ]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str)).strip()


class Turn:
    """What both kinds of turns have in common."""

    uses_pending = False  # whether the picture that waited goes with this turn

    def __init__(self, view: TurnView) -> None:
        self.view = view
        self.jobs: TurnJobs | None = None

    def start(self, engine: Engine) -> TurnJobs:
        """Hand the requests to the engine; raises `QueueFull` when there is no room."""
        self.jobs = TurnJobs(engine)
        self.jobs.submit(self.requests())
        return self.jobs

    def cancel(self) -> None:
        if self.jobs is not None:
            self.jobs.cancel()

    def requests(self) -> list[Request]:
        raise NotImplementedError

    def hear(self, event: JobEvent) -> None:
        """Bring the view up to date."""
        if isinstance(event.event, Failed):
            self.view.problem = explain(event.event.error)
        else:
            self.show(event.index, event.event)

    def show(self, index: int, event: Event) -> None:
        raise NotImplementedError

    @property
    def announcement(self) -> str:
        """What a screen reader says when the turn begins, and when it is over."""
        if self.view.is_running:
            return "Working on it."
        return self.view.problem or self.outcome()

    def outcome(self) -> str:
        raise NotImplementedError

    def messages(self) -> list[Message]:
        """What the turn adds to the conversation that the model reads; nothing if it failed."""
        raise NotImplementedError


class ChatTurn(Turn):
    """A question, and an answer of texts and pictures."""

    uses_pending = True

    def __init__(
        self,
        pipeline: Pipeline,
        question: str,
        *,
        picture: Part | None,
        history: Sequence[Message],
        settings: TextSettings,
    ) -> None:
        super().__init__(TurnView(question, picture["image"] if picture else None))
        self.pipeline = pipeline
        self.history = history
        self.settings = settings
        parts: list[Part] = [picture] if picture else []
        if question:
            parts.append({"type": "text", "text": question})
        self.question: Message = {"role": "user", "content": parts}
        self.answer: Message | None = None

    def requests(self) -> list[Request]:
        return [ChatRequest([*self.history, self.question], self.settings)]

    def show(self, index: int, event: Event) -> None:
        if isinstance(event, str):
            self._add_text(event)
        elif isinstance(event, Image.Image):
            self.view.parts.append(self._drawn(event))
        elif isinstance(event, Finished) and not isinstance(event.result, Image.Image):
            self.answer = event.result.messages[-1]
            self.view.problem = explain_notice(event.result.notice)

    def outcome(self) -> str:
        return self.view.text or "A picture was drawn."

    def messages(self) -> list[Message]:
        return [self.question, self.answer] if self.answer is not None else []

    def _add_text(self, text: str) -> None:
        if self.view.parts and isinstance(self.view.parts[-1], str):
            self.view.parts[-1] += text
        else:
            self.view.parts.append(text)

    def _drawn(self, picture: Image.Image) -> Canvas:
        settings = DrawSettings(seed=self.settings.seed)
        notes = {"question": self.view.question, **build_notes(self.pipeline, settings)}
        rows = self.pipeline.model.config.grid[0]
        canvas = Canvas(self.view.question, self.settings.seed, notes, rows, row=rows)
        canvas.picture = picture
        return canvas


class DrawTurn(Turn):
    """A prompt, and its drawings; number i has the seed `settings.seed + i`."""

    def __init__(self, pipeline: Pipeline, prompt: str, settings: DrawSettings) -> None:
        super().__init__(TurnView(prompt))
        self.pipeline = pipeline
        self.sampling = pipeline.build_sampling(
            guidance_scale=settings.guidance_scale, temperature=settings.temperature
        )
        notes = build_notes(pipeline, settings)
        self.canvases = [
            Canvas(
                title=prompt,
                seed=seed,
                notes={"prompt": prompt, **notes, "seed": seed},
                num_rows=pipeline.model.config.grid[0],
            )
            for seed in range(settings.seed, settings.seed + settings.num_images)
        ]
        self.view.parts += self.canvases

    def requests(self) -> list[Request]:
        return [
            DrawRequest(self.view.question, canvas.seed, self.sampling, preview=True)
            for canvas in self.canvases
        ]

    def show(self, index: int, event: Event) -> None:
        canvas = self.canvases[index]
        if isinstance(event, RowDrawn):
            canvas.row, canvas.num_rows = event.row, event.num_rows
            canvas.preview = event.preview or canvas.preview
        elif isinstance(event, Finished) and isinstance(event.result, Image.Image):
            canvas.row, canvas.picture = canvas.num_rows, event.result

    def outcome(self) -> str:
        return f"{len(self.view.pictures)} of {len(self.canvases)} drawings finished."

    def messages(self) -> list[Message]:
        drawn = [
            self.pipeline.encode_picture(canvas.picture)
            for canvas in self.canvases
            if canvas.picture is not None
        ]
        if not drawn:
            return []
        return [
            {"role": "user", "content": self.view.question},
            {"role": "assistant", "content": drawn},
        ]


def explain_notice(notice: str | None) -> str | None:
    return explain(ValueError(notice)) if notice is not None else None
