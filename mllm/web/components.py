"""Gradio components of our own making: HTML without Gradio's typography, and a picture picker."""

from typing import Any

import gradio as gr

from mllm.web.markup import read_asset
from mllm.web.uploads import MAX_FILE_BYTES

PICKER_TEMPLATE = """
<input type="file" accept="image/*" tabindex="-1" aria-hidden="true" hidden>
<button type="button" class="pick">${label}</button>
"""


def build_html(value: str = "", *, elem_id: str, scripts: str = "", **options: Any) -> gr.HTML:
    """HTML as `page.css` alone styles it; `scripts` names those of the assets that it runs."""
    source = "\n".join(read_asset(f"{name}.js") for name in scripts.split())
    return gr.HTML(
        value, elem_id=elem_id, js_on_load=source or None, apply_default_css=False, **options
    )


def build_picker(*, elem_id: str, label: str = "Add picture") -> gr.HTML:
    """A button that takes a picture from a file, by drag and drop or from the clipboard.

    Its event `upload` carries the picture as a data URL and the number of its bytes. No file is
    stored on the server, and no path or address is taken from a client, as Gradio's own components
    for files would.
    """
    return build_html(
        elem_id=elem_id,
        scripts="picker",
        label=label,
        html_template=PICKER_TEMPLATE,
        max_bytes=MAX_FILE_BYTES,
    )
