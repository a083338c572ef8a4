"""Pictures of a demo run for people: the contact sheet, and the strip that opens the README."""

from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from eval.demo_items import ChatDrawing, Conversation, DrawnPrompt, Turn, reconstruct
from eval.demo_results import Demo
from eval.examples import draw_example
from mllm.pipeline import Pipeline

Color = tuple[int, int, int]
Line = tuple[str, Color]

PAPER: Color = (252, 252, 250)
INK: Color = (36, 38, 42)
MUTED: Color = (112, 116, 122)
RIGHT: Color = (22, 130, 62)
WRONG: Color = (196, 40, 40)
WIDTH = 1440
MARGIN = 24
GAP = 14
FRAME = 4
TEXT_SIZE = 15
LOOK_SIZE, DRAWING_SIZE, PAIR_SIZE, STRIP_SIZE = 176, 98, 152, 216

STRIP_EXAMPLE = "shapes"
STRIP_QUESTION = "what color is the heart?"
STRIP_PROMPTS = (
    "a red circle left of a blue square",
    "three green hearts",
    "a black ring and a yellow star",
    "a purple circle",  # a combination that training leaves out
)
STRIP_SEED = 0


# ---- the contact sheet ---------------------------------------------------------------------------


def build_sheet(demo: Demo) -> Image.Image:
    """Everything of a run on one picture."""
    inner = WIDTH - 2 * MARGIN
    half, third = (inner - 2 * GAP) // 2, (inner - 2 * 2 * GAP) // 3
    talks = [_conversation(each, half) for each in demo.conversations]
    prompts = [_drawn_prompt(each, third) for each in demo.prompts]
    pairs = [
        framed_pair(each.original, each.picture, f"{each.psnr:.1f} dB", right=each.right)
        for each in demo.reconstructions
    ]
    blocks = [
        text_block([("looks at pictures and talks about them", INK)], inner, size=26),
        *_in_rows(talks, 2, gap=2 * GAP),
        text_block([("draws from prompts, four drawings each", INK)], inner, size=26),
        *_in_rows(prompts, 3, gap=2 * GAP),
        text_block([("draws in a chat", INK)], inner, size=26),
        _chat_drawing(demo.chat_drawing, inner),
        text_block([("original above, decoded from its codes below", INK)], inner, size=26),
        beside(pairs),
    ]
    body = stacked(blocks, gap=2 * GAP)
    sheet = Image.new("RGB", (WIDTH, body.height + 2 * MARGIN), PAPER)
    sheet.paste(body, (MARGIN, MARGIN))
    return sheet


def _conversation(conversation: Conversation, width: int) -> Image.Image:
    lines = [(conversation.title, MUTED)]
    for turn in conversation.turns:
        lines += _turn_lines(turn)
    text = text_block(lines, width - LOOK_SIZE - GAP)
    return beside([enlarged(conversation.picture, LOOK_SIZE), text])


def _turn_lines(turn: Turn) -> list[Line]:
    answer = turn.answer or "(no answer)"
    if turn.right:
        return [(turn.question, INK), (f"    {answer}", RIGHT)]
    return [(turn.question, INK), (f"    {answer}  (wrong, expected: {turn.expected})", WRONG)]


def _drawn_prompt(drawn: DrawnPrompt, width: int) -> Image.Image:
    count = f"{drawn.num_right} of {len(drawn.drawings)} right"
    text = text_block([(drawn.prompt, INK), (f"{drawn.task_words}, {count}", MUTED)], width)
    tiles = [framed(each.picture, DRAWING_SIZE, right=each.right) for each in drawn.drawings]
    return stacked([text, beside(tiles, gap=6)], gap=6)


def _chat_drawing(chat: ChatDrawing, width: int) -> Image.Image:
    lines = [(chat.request, INK), (f"    {chat.answer}", MUTED)]
    if chat.follow_up is not None:
        lines += _turn_lines(chat.follow_up)
    text = text_block(lines, width - LOOK_SIZE - GAP)
    if chat.drawing is None:
        return text
    tile = framed(chat.drawing.picture, LOOK_SIZE, right=chat.drawing.right)
    return beside([tile, text])


def framed_pair(above: Image.Image, below: Image.Image, label: str, *, right: bool) -> Image.Image:
    """Two pictures over each other with a label; the lower one's frame says whether it is right."""
    width = PAIR_SIZE + 2 * FRAME
    tiles = [framed(above, PAIR_SIZE, right=None), framed(below, PAIR_SIZE, right=right)]
    return stacked([*tiles, text_block([(label, MUTED)], width)], gap=6)


# ---- the strip -----------------------------------------------------------------------------------


def build_strip(pipeline: Pipeline) -> Image.Image:
    """A picture and an answer, the picture from its codes, and four prompts' first drawings."""
    picture = draw_example(STRIP_EXAMPLE)
    answer = pipeline.chat(STRIP_QUESTION, picture, max_new_tokens=16)
    rebuilt, value = reconstruct(pipeline, picture)
    drawings = pipeline.generate_images(STRIP_PROMPTS, num_images=1, seed=STRIP_SEED)
    captions = [
        f"{STRIP_QUESTION} {answer.text}",
        f"the same from its codes, {value:.1f} dB",
        *STRIP_PROMPTS,
    ]
    tiles = [
        stacked([enlarged(each, STRIP_SIZE), text_block([(caption, INK)], STRIP_SIZE)], gap=8)
        for each, caption in zip([picture, rebuilt, *drawings], captions, strict=True)
    ]
    row = beside(tiles)
    strip = Image.new("RGB", (row.width + 2 * GAP, row.height + 2 * GAP), PAPER)
    strip.paste(row, (GAP, GAP))
    return strip


# ---- blocks --------------------------------------------------------------------------------------


def enlarged(picture: Image.Image, size: int) -> Image.Image:
    """The picture as a square of this many pixels."""
    return picture.resize((size, size), Image.Resampling.LANCZOS)


def framed(picture: Image.Image, size: int, *, right: bool | None) -> Image.Image:
    """The picture in a green or red frame, or in one that cannot be seen."""
    color = PAPER if right is None else RIGHT if right else WRONG
    tile = Image.new("RGB", (size + 2 * FRAME, size + 2 * FRAME), color)
    tile.paste(enlarged(picture, size), (FRAME, FRAME))
    return tile


def text_block(lines: Sequence[Line], width: int, *, size: int = TEXT_SIZE) -> Image.Image:
    """Lines of text, wrapped at `width` pixels."""
    font = _font(size)
    wrapped = [(part, color) for text, color in lines for part in wrap(text, width, size=size)]
    step = round(size * 1.35)
    block = Image.new("RGB", (width, step * len(wrapped) + 2), PAPER)
    draw = ImageDraw.Draw(block)
    for number, (text, color) in enumerate(wrapped):
        draw.text((0, number * step), text, fill=color, font=font)
    return block


def wrap(text: str, width: int, *, size: int = TEXT_SIZE) -> list[str]:
    """The text in lines of at most `width` pixels; what begins with spaces stays indented."""
    font = _font(size)
    indent = text[: len(text) - len(text.lstrip())]
    lines = [indent]
    for word in text.split():
        candidate = lines[-1] + ("" if lines[-1] == indent else " ") + word
        if font.getlength(candidate) > width and lines[-1] != indent:
            lines.append(indent + word)
        else:
            lines[-1] = candidate
    return lines


def beside(images: Sequence[Image.Image], *, gap: int = GAP) -> Image.Image:
    """Pictures in a row, aligned at the top."""
    width = sum(image.width for image in images) + gap * (len(images) - 1)
    row = Image.new("RGB", (width, max(image.height for image in images)), PAPER)
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + gap
    return row


def stacked(images: Sequence[Image.Image], *, gap: int = GAP) -> Image.Image:
    """Pictures below each other, aligned on the left."""
    height = sum(image.height for image in images) + gap * (len(images) - 1)
    column = Image.new("RGB", (max(image.width for image in images), height), PAPER)
    top = 0
    for image in images:
        column.paste(image, (0, top))
        top += image.height + gap
    return column


def _in_rows(images: Sequence[Image.Image], columns: int, *, gap: int) -> list[Image.Image]:
    starts = range(0, len(images), columns)
    return [beside(images[start : start + columns], gap=gap) for start in starts]


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
