"""What the tab of the conversation consists of."""

from typing import Any

import gradio as gr

from mllm.answer import TextSettings
from mllm.pipeline import Pipeline
from mllm.web import markup
from mllm.web.components import build_html, build_picker
from mllm.web.conversation import Conversation
from mllm.web.examples import Example

MAX_TEXT_LENGTH = 4000  # characters of a question
MAX_PICTURES = 4  # of one prompt
MAX_SEED = 2**31 - 1


class Stage:
    """The conversation itself: what was said, and what is being made."""

    def __init__(self, pipeline: Pipeline, examples: tuple[Example, ...]) -> None:
        size = pipeline.image_size
        about = (
            f"One model reads and draws pictures of {size} by {size} pixels. "
            "Drop a picture anywhere on this page, or begin with one of these."
        )
        self.conversation = gr.State(Conversation())
        self.welcome = build_html(
            markup.render_welcome(examples, about=about), elem_id="welcome", scripts="actions"
        )
        self.transcript = build_html(elem_id="transcript", scripts="actions follow")
        self.live = build_html(elem_id="live", scripts="follow")
        self.status = build_html(markup.render_status(""), elem_id="status", elem_classes="unseen")


class Composer:
    """Where a person writes, shows pictures, and sends."""

    def __init__(self) -> None:
        self.notice = build_html(elem_id="notice")
        self.pending = build_html(elem_id="pending", scripts="actions")
        self.text = gr.Textbox(
            label="Question or prompt",
            placeholder="Ask, or describe a picture to draw",
            show_label=False,
            container=False,
            lines=1,
            max_lines=6,
            max_length=MAX_TEXT_LENGTH,
            elem_id="text",
        )
        with gr.Row(elem_id="actions"):
            self.picker = build_picker(elem_id="picker")
            self.restart = gr.Button("New chat", elem_id="restart", visible=False, min_width=0)
            self.stop = gr.Button("Stop", elem_id="stop", visible=False, min_width=0)
            self.draw = gr.Button("Draw", elem_id="draw", min_width=0)
            self.ask = gr.Button("Ask", elem_id="ask", variant="primary", min_width=0)


class Settings:
    """Folded away until somebody wants them."""

    def __init__(self, pipeline: Pipeline) -> None:
        own = pipeline.build_sampling()
        with gr.Accordion("Settings", open=False, elem_id="settings"):
            self.num_pictures = gr.Slider(
                1, MAX_PICTURES, 1, step=1, label="Pictures", info="drawn of one prompt"
            )
            self.guidance = gr.Slider(
                1,
                15,
                own.guidance_scale,
                step=0.5,
                label="Guidance",
                info="how closely a drawing keeps to its prompt",
            )
            self.temperature = gr.Slider(
                0,
                2,
                own.temperature,
                step=0.05,
                label="Temperature",
                info="how much chance is in a drawing",
            )
            self.seed = gr.Number(
                None,
                label="Seed",
                info="the same seed gives the same; empty: a new one each time",
                placeholder="random",
                precision=0,
                minimum=0,
                maximum=MAX_SEED,
            )
            self.answer_temperature = gr.Slider(
                0, 2, 0, step=0.05, label="Answer temperature", info="0: the likeliest words"
            )
            self.answer_length = gr.Slider(
                16,
                512,
                TextSettings().max_new_tokens,
                step=16,
                label="Longest answer",
                info="in tokens",
            )

    @property
    def of_answers(self) -> list[Any]:
        return [self.answer_temperature, self.answer_length, self.seed]

    @property
    def of_drawings(self) -> list[Any]:
        return [self.num_pictures, self.guidance, self.temperature, self.seed]
