"""The tab that shows what becomes of a picture in the tokenizer."""

from typing import Any

import gradio as gr
from PIL import Image

from mllm.pictures import EXAMPLE_PREFIX, example_names, open_picture
from mllm.pipeline import Pipeline
from mllm.web import markup, problems
from mllm.web.components import build_html, build_picker
from mllm.web.tokenization import tokenize
from mllm.web.tokenization_markup import render_examples, render_tokenization
from mllm.web.uploads import chosen_number, read_upload_event

ABOUT = (
    '<p class="about">A picture becomes a grid of visual tokens, and each of these one code from '
    "every codebook. Those codes are all that the model reads and writes.</p>"
)
FIRST_EXAMPLE = "shapes"  # what an untouched tab shows


class TokenizationTab:
    """Built inside `gr.Blocks`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.examples = example_names()
        with gr.Column(elem_id="codes"):
            build_html(ABOUT, elem_id="code-about")
            with gr.Row(elem_id="code-source"):
                self.picker = build_picker(elem_id="code-picker", label="Choose a picture")
                self.thumbnails = build_html(
                    render_examples(self.examples), elem_id="thumbnails", scripts="actions"
                )
            self.notice = build_html(elem_id="code-notice")
            self.result = build_html(
                self._show(open_picture(EXAMPLE_PREFIX + FIRST_EXAMPLE)), elem_id="code-result"
            )
        outputs: dict[str, Any] = {
            "outputs": [self.result, self.notice],
            "api_visibility": "private",
            "show_progress": "hidden",
        }
        self.picker.upload(self.show_upload, None, **outputs)
        self.thumbnails.click(self.show_example, None, **outputs)

    def show_upload(self, event: gr.EventData) -> dict[Any, Any]:
        try:
            return {self.result: self._show(read_upload_event(event)), self.notice: ""}
        except ValueError as error:
            return {self.notice: markup.render_notice(problems.explain(error))}

    def show_example(self, event: gr.EventData) -> dict[Any, Any]:
        name = self.examples[chosen_number(event, len(self.examples))]
        return {self.result: self._show(open_picture(EXAMPLE_PREFIX + name)), self.notice: ""}

    def _show(self, picture: Image.Image) -> str:
        return render_tokenization(tokenize(self.pipeline, picture))
