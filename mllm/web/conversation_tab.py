"""The tab where a person talks with the model, and what happens on each event."""

import secrets
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import gradio as gr

from mllm.answer import TextSettings
from mllm.drawings import DrawSettings
from mllm.engine import Engine, QueueFull
from mllm.pictures import EXAMPLE_PREFIX, open_picture
from mllm.pipeline import Pipeline
from mllm.web import markup, problems
from mllm.web.components import build_html
from mllm.web.conversation import Conversation
from mllm.web.conversation_parts import MAX_PICTURES, MAX_SEED, Composer, Settings, Stage
from mllm.web.examples import examples_for
from mllm.web.turns import ChatTurn, DrawTurn, Turn
from mllm.web.uploads import chosen_number, read_upload_event

Update: TypeAlias = dict[Any, Any]  # components, and what they become


class ConversationTab:
    """Built inside `gr.Blocks`."""

    def __init__(self, engine: Engine, pipeline: Pipeline) -> None:
        self.engine = engine
        self.pipeline = pipeline
        self.examples = examples_for(pipeline)
        self.running: dict[str, Turn] = {}  # of each open page, the turn in work
        with gr.Row(elem_id="talk"):
            with gr.Column(elem_id="stage"):
                self.stage = Stage(pipeline, self.examples)
                with gr.Column(elem_id="composer"):
                    self.composer = Composer()
            with gr.Column(elem_id="side"):
                self.settings = Settings(pipeline)
                self.gallery = build_html(
                    markup.render_gallery([]), elem_id="gallery", scripts="actions"
                )
        self._connect_turns()
        self._connect_pictures()

    # -- turns -----------------------------------------------------------------------------------

    def answer(
        self,
        conversation: Conversation,
        text: str,
        temperature: float,
        length: float,
        seed: float | None,
        request: gr.Request,
    ) -> Iterator[Update]:
        """Ask the model; its answer appears word by word."""

        def build() -> Turn:
            if not text.strip() and conversation.pending is None:
                raise ValueError(problems.EMPTY_QUESTION)
            settings = TextSettings(
                max_new_tokens=int(length), temperature=temperature, seed=choose_seed(seed)
            )
            return ChatTurn(
                self.pipeline,
                text.strip(),
                picture=conversation.pending,
                history=conversation.messages,
                settings=settings,
            )

        yield from self._run(build, conversation, str(request.session_hash))

    def draw(
        self,
        conversation: Conversation,
        text: str,
        num_pictures: float,
        guidance: float,
        temperature: float,
        seed: float | None,
        request: gr.Request,
    ) -> Iterator[Update]:
        """Have pictures drawn; they appear row by row."""

        def build() -> Turn:
            if not text.strip():
                raise ValueError(problems.EMPTY_PROMPT)
            settings = DrawSettings(
                num_images=min(int(num_pictures), MAX_PICTURES),
                seed=choose_seed(seed),
                guidance_scale=guidance,
                temperature=temperature,
            )
            return DrawTurn(self.pipeline, text.strip(), settings)

        yield from self._run(build, conversation, str(request.session_hash))

    def try_example(
        self,
        conversation: Conversation,
        temperature: float,
        length: float,
        num_pictures: float,
        guidance: float,
        drawing_temperature: float,
        seed: float | None,
        request: gr.Request,
        event: gr.EventData,
    ) -> Iterator[Update]:
        """Do what an example says."""
        example = self.examples[chosen_number(event, len(self.examples))]
        if example.picture is None:
            yield from self.draw(
                conversation,
                example.text,
                num_pictures,
                guidance,
                drawing_temperature,
                seed,
                request,
            )
            return
        picture = open_picture(EXAMPLE_PREFIX + example.picture)
        shown = conversation.with_picture(self.pipeline, picture)
        yield from self.answer(shown, example.text, temperature, length, seed, request)

    def stop(self, request: gr.Request) -> None:
        """End the turn in work; what is there of it stays."""
        turn = self.running.get(str(request.session_hash))
        if turn is not None:
            turn.cancel()

    def start_anew(self, request: gr.Request) -> Update:
        """Forget the conversation."""
        self.stop(request)
        return {
            self.stage.conversation: Conversation(),
            self.stage.welcome: gr.update(visible=True),
            self.stage.transcript: "",
            self.composer.notice: "",
            self.composer.pending: "",
            self.composer.restart: gr.update(visible=False),
            self.gallery: markup.render_gallery([]),
        }

    def _run(
        self, build: Callable[[], Turn], conversation: Conversation, session: str
    ) -> Iterator[Update]:
        """Show a turn while it is made, then add it to the conversation."""
        try:
            if session in self.running:
                raise ValueError(problems.BUSY)
            turn = build()
            jobs = turn.start(self.engine)
        except (ValueError, QueueFull) as error:
            yield {self.composer.notice: markup.render_notice(problems.explain(error))}
            return
        self.running[session] = turn
        try:
            yield self._begin(turn)
            for batch in jobs.events():
                for event in batch:
                    turn.hear(event)
                yield {self.stage.live: markup.render_turn(turn.view)}
            yield self._end(turn, conversation.after(turn))
        finally:  # also when the page was left
            turn.cancel()
            self.running.pop(session, None)

    def _begin(self, turn: Turn) -> Update:
        update: Update = {
            self.stage.welcome: gr.update(visible=False),
            self.stage.live: markup.render_turn(turn.view),
            self.stage.status: markup.render_status(turn.announcement),
            self.composer.notice: "",
            self.composer.text: "",
            **self._buttons(is_running=True),
        }
        if turn.uses_pending:
            update[self.composer.pending] = ""
        return update

    def _end(self, turn: Turn, conversation: Conversation) -> Update:
        return {
            self.stage.conversation: conversation,
            self.stage.transcript: conversation.transcript,
            self.stage.live: "",
            self.stage.status: markup.render_status(turn.announcement),
            self.gallery: markup.render_gallery(conversation.drawings),
            **self._buttons(is_running=False),
        }

    def _buttons(self, *, is_running: bool) -> Update:
        composer = self.composer
        idle = gr.update(interactive=not is_running)
        return {
            composer.ask: idle,
            composer.draw: idle,
            composer.restart: gr.update(visible=not is_running),
            composer.stop: gr.update(visible=is_running),
        }

    # -- pictures --------------------------------------------------------------------------------

    def show_picture(self, conversation: Conversation, event: gr.EventData) -> Update:
        """Keep an uploaded picture for the next question."""
        try:
            picture = read_upload_event(event)
            return self._pend(conversation.with_picture(self.pipeline, picture))
        except ValueError as error:
            return {self.composer.notice: markup.render_notice(problems.explain(error))}

    def reuse_drawing(self, conversation: Conversation, event: gr.EventData) -> Update:
        """Keep a drawing for the next question."""
        drawing = conversation.drawings[chosen_number(event, len(conversation.drawings))]
        assert drawing.picture is not None
        return self._pend(conversation.with_picture(self.pipeline, drawing.picture))

    def remove_picture(self, conversation: Conversation) -> Update:
        """The next question comes without a picture after all."""
        return self._pend(conversation.without_picture())

    def _pend(self, conversation: Conversation) -> Update:
        shown = conversation.pending["image"] if conversation.pending else None
        return {
            self.stage.conversation: conversation,
            self.composer.pending: markup.render_pending(shown),
            self.composer.notice: "",
        }

    # -- wiring ----------------------------------------------------------------------------------

    def _connect_turns(self) -> None:
        stage, composer, settings = self.stage, self.composer, self.settings
        said = [stage.conversation, composer.text]
        shared: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        long: dict[str, Any] = {**shared, "outputs": self._outputs(), "concurrency_limit": None}
        answering = [*said, *settings.of_answers]
        gr.on([composer.ask.click, composer.text.submit], self.answer, answering, **long)
        composer.draw.click(self.draw, [*said, *settings.of_drawings], **long)
        values = [*settings.of_answers[:-1], *settings.of_drawings]
        stage.welcome.click(self.try_example, [stage.conversation, *values], **long)
        composer.stop.click(self.stop, None, None, concurrency_limit=None, **shared)
        composer.restart.click(self.start_anew, None, **long)

    def _connect_pictures(self) -> None:
        stage, composer = self.stage, self.composer
        shared: dict[str, Any] = {
            "inputs": [stage.conversation],
            "outputs": [stage.conversation, composer.pending, composer.notice],
            "api_visibility": "private",
            "show_progress": "hidden",
            "concurrency_limit": 2,  # encoding takes the model's own processor or GPU
        }
        composer.picker.upload(self.show_picture, **shared)
        for component in (stage.transcript, self.gallery):
            component.click(self.reuse_drawing, **shared)
        composer.pending.click(self.remove_picture, **shared)

    def _outputs(self) -> list[Any]:
        """All that a turn changes."""
        stage, composer = self.stage, self.composer
        return [
            *(stage.conversation, stage.welcome, stage.transcript, stage.live, stage.status),
            *(composer.notice, composer.pending, composer.text, self.gallery),
            *(composer.ask, composer.draw, composer.stop, composer.restart),
        ]


def choose_seed(value: float | None) -> int:
    """The given seed, or any."""
    if value is None:
        return secrets.randbelow(MAX_SEED + 1)
    if not 0 <= value <= MAX_SEED:
        raise ValueError(f"a seed must be 0 to {MAX_SEED}, got {value:g}; choose another")
    return int(value)
