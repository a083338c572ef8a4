"""The page's own HTML. Every text of a person or a model is escaped here."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from mllm.pictures import encode_png, example_path
from mllm.pipeline import Pipeline
from mllm.web.examples import Example
from mllm.web.turns import Canvas, TurnView

ASSETS = Path(__file__).parent / "assets"
PREVIEW_QUALITY = 80  # of JPEG: previews come often and are replaced


def read_asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def png_url(picture: Image.Image, notes: dict[str, object] | None = None) -> str:
    """A picture as a data URL, with `notes` in its PNG."""
    return _data_url("png", encode_png(picture, notes=notes))


def jpeg_url(picture: Image.Image) -> str:
    """A smaller data URL for pictures that are only looked at."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=PREVIEW_QUALITY)
    return _data_url("jpeg", buffer.getvalue())


def render_turn(view: TurnView, *, first_drawing: int = 0) -> str:
    """A question with its answer, as far as it is there.

    Drawings are numbered from `first_drawing` on, for the buttons below them.
    """
    number = first_drawing
    answer = []
    pictures: list[str] = []
    for part in view.parts:
        if isinstance(part, str):
            answer.append(_render_text(part))
        elif part.picture is None:
            pictures.append(_render_canvas(part, is_running=view.is_running))
        else:
            pictures.append(render_drawing(part, number=None if view.is_running else number))
            number += 1
    if pictures:
        answer.append(
            f'<div class="pictures" data-count="{len(pictures)}">{"".join(pictures)}</div>'
        )
    if view.is_running and not view.parts:
        answer.append('<p class="waiting"><span></span><span></span><span></span></p>')
    if view.problem:
        answer.append(f'<p class="problem">{escape(view.problem)}</p>')
    return (
        f'<article class="turn">{_render_question(view)}'
        f'<div class="answer"><span class="unseen">UniTok: </span>{"".join(answer)}</div></article>'
    )


def render_drawing(canvas: Canvas, *, number: int | None) -> str:
    """A finished drawing; with its number in the conversation it also has buttons."""
    assert canvas.picture is not None
    title = escape(canvas.title)
    image = (
        f'<img src="{png_url(canvas.picture, canvas.notes)}" alt="Drawing: {title}" '
        f'width="{canvas.picture.width}" height="{canvas.picture.height}">'
    )
    buttons = "" if number is None else _render_buttons(canvas, number)
    return (
        f'<figure class="drawing">{image}<figcaption><span>seed {canvas.seed}</span>{buttons}'
        "</figcaption></figure>"
    )


def render_gallery(drawings: Sequence[Canvas]) -> str:
    """All drawings of a conversation, the latest first."""
    if not drawings:
        return (
            '<h2 class="side-title">Drawings</h2>'
            '<p class="quiet">Drawings collect here, ready to download.</p>'
        )
    numbered = reversed(list(enumerate(drawings)))
    figures = "".join(render_drawing(canvas, number=number) for number, canvas in numbered)
    return (
        f'<h2 class="side-title">Drawings <span class="quiet">{len(drawings)}</span></h2>'
        f'<div class="gallery">{figures}</div>'
    )


def render_pending(picture: Image.Image | None) -> str:
    """The picture that waits for a question."""
    if picture is None:
        return ""
    return (
        f'<div class="pending"><img src="{jpeg_url(picture)}" alt="The picture for your next '
        'question"><span>goes with your next question</span>'
        '<button type="button" data-action="remove" aria-label="Remove the picture">Remove'
        "</button></div>"
    )


def render_notice(text: str) -> str:
    """What keeps something from being done; stays until the next try."""
    return f'<p class="notice" role="alert">{escape(text)}</p>' if text else ""


def render_status(text: str) -> str:
    """What a screen reader announces."""
    return f'<p role="status">{escape(text)}</p>'


def render_header(pipeline: Pipeline) -> str:
    """The page's name and the model's size."""
    size = pipeline.image_size
    cells = "".join("<i></i>" for _ in range(9))
    return (
        f'<header class="bar"><span class="logo" aria-hidden="true">{cells}</span>'
        f'<strong>UniTok</strong><span class="quiet">{size} by {size} pixels</span></header>'
    )


def render_welcome(examples: Sequence[Example], *, about: str) -> str:
    cards = "".join(_render_example(number, each) for number, each in enumerate(examples))
    return (
        '<section class="welcome"><h1>Show a picture, ask,<br>or have one drawn.</h1>'
        f'<p class="about">{escape(about)}</p><div class="examples">{cards}</div></section>'
    )


def _render_example(number: int, example: Example) -> str:
    text = escape(example.text)
    if example.picture is None:
        face = '<span class="blank" aria-hidden="true"></span>'
        kind = "Draw"
    else:
        with Image.open(example_path(example.picture)) as picture:
            face = f'<img src="{jpeg_url(picture.convert("RGB"))}" alt="">'
        kind = "Ask"
    return (
        f'<button type="button" class="example" data-action="example" data-number="{number}">'
        f'{face}<span class="kind">{kind}</span><span class="text">{text}</span></button>'
    )


def _render_question(view: TurnView) -> str:
    shown = ""
    if view.shown is not None:
        shown = f'<img src="{jpeg_url(view.shown)}" alt="The picture you showed">'
    text = f"<p>{escape(view.question)}</p>" if view.question else ""
    return f'<div class="question"><span class="unseen">You: </span>{shown}{text}</div>'


def _render_text(text: str) -> str:
    return f'<p class="text">{escape(text.strip())}</p>' if text.strip() else ""


def _render_canvas(canvas: Canvas, *, is_running: bool) -> str:
    """A drawing with what is missing of it covered."""
    preview = "" if canvas.preview is None else f'<img src="{jpeg_url(canvas.preview)}" alt="">'
    place = f"row {canvas.row} of {canvas.num_rows}" if canvas.row else "waiting for its turn"
    caption = place if is_running else "not finished"
    return (
        f'<figure class="canvas{"" if canvas.preview else " unknown"}" '
        f'style="--row:{canvas.row};--rows:{canvas.num_rows}">'
        f'<div class="sheet" role="progressbar" aria-label="Drawing {escape(canvas.title)}" '
        f'aria-valuemin="0" aria-valuemax="{canvas.num_rows}" aria-valuenow="{canvas.row}">'
        f'{preview}<div class="cover"></div></div>'
        f"<figcaption><span>{caption}</span></figcaption></figure>"
    )


def _render_buttons(canvas: Canvas, number: int) -> str:
    title = escape(canvas.title)
    return (
        f'<span class="actions"><button type="button" data-action="reuse" data-number="{number}" '
        f'aria-label="Ask about this drawing: {title}">Ask</button>'
        f'<button type="button" data-action="download" data-name="drawing-{canvas.seed}.png" '
        f'aria-label="Download this drawing: {title}">Download</button></span>'
    )


def _data_url(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
