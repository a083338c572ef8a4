"""A table of scores as a picture, with Pillow and the font inside it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from eval.score_table import ScoreTable

FONT_SIZE = 20
NOTE_SIZE = 16
TITLE_SIZE = 28
MARGIN = 32
CELL_PADDING = 12
LINE_HEIGHT = 1.5  # of the font size
MIN_WIDTH = 900  # so that notes have room beside a narrow table
INK, GREY, RED, RULE, BAND = "#1b1b1f", "#5f6068", "#b3261e", "#c9cad1", "#f4f4f7"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class Line:
    """A line of text beside the table."""

    text: str
    size: int
    color: str


def draw_table(table: ScoreTable) -> Image.Image:
    """The table, its warnings and its notes as an RGB picture that is as large as they need."""
    widths = _column_widths(table)
    width = max(MIN_WIDTH, sum(widths) + 2 * MARGIN)
    above = [
        *_lines([table.title], TITLE_SIZE, INK, width=width - 2 * MARGIN),
        *_lines(table.warnings, FONT_SIZE, RED, width=width - 2 * MARGIN),
    ]
    below = list(_lines(table.notes, NOTE_SIZE, GREY, width=width - 2 * MARGIN))
    num_rows = len(table.rows) + 1
    height = sum(_height(line.size) for line in [*above, *below]) + num_rows * _height(FONT_SIZE)
    picture = Image.new("RGB", (width, height + 2 * MARGIN + 2 * FONT_SIZE), "white")
    draw = ImageDraw.Draw(picture)
    top = _draw_lines(draw, above, MARGIN) + FONT_SIZE
    top = _draw_cells(draw, table, widths, top) + FONT_SIZE
    _draw_lines(draw, below, top)
    return picture


def _lines(texts: Sequence[str], size: int, color: str, *, width: int) -> Iterator[Line]:
    for text in texts:
        yield from (Line(part, size, color) for part in _wrap(text, size, width))


def _draw_lines(draw: ImageDraw.ImageDraw, lines: Sequence[Line], top: int) -> int:
    """Draw lines below each other; returns where they end."""
    for line in lines:
        draw.text((MARGIN, top), line.text, font=_font(line.size), fill=line.color)
        top += _height(line.size)
    return top


def _wrap(text: str, size: int, width: int) -> list[str]:
    """Lines of at most `width` pixels."""
    num_letters = len(text)
    while True:
        lines = wrap(text, num_letters) or [""]
        longest = max(_text_width(line, size) for line in lines)
        if longest <= width:
            return lines
        num_letters = min(num_letters - 1, int(num_letters * width / longest))


def _draw_cells(
    draw: ImageDraw.ImageDraw, table: ScoreTable, widths: Sequence[int], top: int
) -> int:
    """Heading and rows; returns where the table ends."""
    height = _height(FONT_SIZE)
    right = MARGIN + sum(widths)
    for number, row in enumerate([table.heading, *table.rows]):
        if number % 2 == 0 and number:
            draw.rectangle((MARGIN, top, right, top + height - 1), fill=BAND)
        left = MARGIN
        for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
            # Names begin at the left, numbers end at the right.
            space = width - CELL_PADDING - _text_width(cell, FONT_SIZE)
            start = left + (CELL_PADDING if column < 2 else space)
            place = (start, top + (height - FONT_SIZE) // 2)
            draw.text(place, cell, font=_font(FONT_SIZE), fill=INK if number else GREY)
            left += width
        top += height
        if number == 0:
            draw.line((MARGIN, top - 1, right, top - 1), fill=RULE, width=2)
    return top


def _column_widths(table: ScoreTable) -> list[int]:
    columns = zip(table.heading, *table.rows, strict=True)
    return [
        max(_text_width(cell, FONT_SIZE) for cell in column) + 2 * CELL_PADDING
        for column in columns
    ]


def _text_width(text: str, size: int) -> int:
    return int(_font(size).getlength(text)) + 1


def _height(size: int) -> int:
    return int(size * LINE_HEIGHT)


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
