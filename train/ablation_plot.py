"""A study as a picture: a panel for each metric, every seed a dot, mean and spread beside them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from train.ablation_results import METRICS, Metric, Row, summary

SCALE = 2  # everything is drawn so much larger, then made smaller: Pillow draws jagged circles
COLUMNS = 3  # of panels
LABEL_WIDTH = 230
PANEL_WIDTH, PANEL_GAP = 270, 34
ROW_HEIGHT, HEADING_HEIGHT, AXIS_HEIGHT = 62, 40, 40
MARGIN, TITLE_HEIGHT = 28, 52
DOT_RADIUS = 6
PADDING = 0.14  # of the range of values, on both sides of them
INK, GREY, FAINT, BAND = "#1b1b1f", "#5f6068", "#c9cad1", "#f4f4f7"
COLORS = ("#2f6fbb", "#d1762b", "#3b8f5a", "#8d4fa8")  # of variants; dots of all seeds alike


@dataclass(frozen=True)
class Axis:
    """Values along the width of a panel whose left edge is at `left`."""

    low: float
    high: float
    left: float

    def place(self, value: float) -> float:
        """Pixels from the picture's left edge."""
        return self.left + PANEL_WIDTH * (value - self.low) / (self.high - self.low)


def draw_study(title: str, rows: Mapping[str, Row]) -> Image.Image:
    """The plot of a study; panels of metrics that nobody learned are left out."""
    metrics = [metric for metric in METRICS if any(row[metric.name] for row in rows.values())]
    num_bands = -(-len(metrics) // COLUMNS)
    band_height = HEADING_HEIGHT + ROW_HEIGHT * len(rows) + AXIS_HEIGHT
    width = 2 * MARGIN + LABEL_WIDTH + COLUMNS * (PANEL_WIDTH + PANEL_GAP) - PANEL_GAP
    height = 2 * MARGIN + TITLE_HEIGHT + num_bands * band_height
    canvas = _Canvas(width, height)
    canvas.text((MARGIN, MARGIN), title, size=24)
    for number, metric in enumerate(metrics):
        band, column = divmod(number, COLUMNS)
        top = MARGIN + TITLE_HEIGHT + band * band_height
        if column == 0:
            _draw_labels(canvas, list(rows), top=top + HEADING_HEIGHT)
        left = MARGIN + LABEL_WIDTH + column * (PANEL_WIDTH + PANEL_GAP)
        _draw_panel(canvas, metric, rows, left=left, top=top)
    return canvas.finished()


def _draw_labels(canvas: "_Canvas", labels: Sequence[str], *, top: int) -> None:
    for number, label in enumerate(labels):
        middle = top + ROW_HEIGHT * number + ROW_HEIGHT / 2
        canvas.dot((MARGIN + DOT_RADIUS, middle), COLORS[number % len(COLORS)])
        canvas.text((MARGIN + 4 * DOT_RADIUS, middle), label, size=16, anchor="lm")


def _draw_panel(
    canvas: "_Canvas", metric: Metric, rows: Mapping[str, Row], *, left: int, top: int
) -> None:
    first = top + HEADING_HEIGHT
    bottom = first + ROW_HEIGHT * len(rows)
    axis = _axis(metric, [row[metric.name] for row in rows.values()], left=left)
    canvas.text((left, top + 8), metric.heading, size=16)
    canvas.box((left, first, left + PANEL_WIDTH, bottom), BAND)
    if metric.chance is not None:
        _draw_chance(canvas, axis, metric.chance, first=first, bottom=bottom)
    for value, anchor in ((axis.low, "la"), (axis.high, "ra")):
        text = f"{value:.{metric.decimals}f}"
        canvas.text((axis.place(value), bottom + 6), text, size=13, color=GREY, anchor=anchor)
    for number, row in enumerate(rows.values()):
        middle = first + ROW_HEIGHT * number + ROW_HEIGHT * 0.64
        values = row[metric.name]
        text = summary(values, metric.decimals) if values else "not learned"
        at = (left + PANEL_WIDTH - 8, middle - ROW_HEIGHT * 0.4)
        canvas.text(at, text, size=14, color=INK if values else GREY, anchor="rm")
        if values:
            _draw_values(canvas, axis, values, middle=middle, color=COLORS[number % len(COLORS)])


def _draw_chance(canvas: "_Canvas", axis: Axis, chance: float, *, first: int, bottom: int) -> None:
    place = axis.place(chance)
    canvas.dashes(place, first, bottom)
    canvas.text((place, bottom + 22), "chance", size=12, color=GREY, anchor="ma")


def _draw_values(
    canvas: "_Canvas", axis: Axis, values: Sequence[float], *, middle: float, color: str
) -> None:
    """Spread as a bar, mean as a stroke, seeds as dots."""
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    low, high = axis.place(max(mean - spread, axis.low)), axis.place(min(mean + spread, axis.high))
    canvas.box((low, middle - 3, high, middle + 3), FAINT)
    for value in values:
        canvas.dot((axis.place(value), middle), color)
    at = axis.place(mean)
    canvas.box((at - 1, middle - 13, at + 1, middle + 13), INK)


def _axis(metric: Metric, values: Sequence[Sequence[float]], *, left: int) -> Axis:
    """From the lowest to the highest of all values and chance, with room on both sides."""
    known = [value for own in values for value in own]
    if metric.chance is not None:
        known.append(metric.chance)
    room = (max(known) - min(known)) * PADDING or 1.0
    lowest, highest = metric.limits
    return Axis(max(min(known) - room, lowest), min(max(known) + room, highest), left)


class _Canvas:
    """Places and sizes in pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._picture = Image.new("RGB", (width * SCALE, height * SCALE), "white")
        self._draw = ImageDraw.Draw(self._picture)

    def text(
        self,
        place: tuple[float, float],
        text: str,
        *,
        size: int,
        color: str = INK,
        anchor: str = "la",
    ) -> None:
        font = ImageFont.load_default(size * SCALE)
        at = (place[0] * SCALE, place[1] * SCALE)
        self._draw.text(at, text, font=font, fill=color, anchor=anchor)

    def box(self, edges: tuple[float, float, float, float], color: str) -> None:
        self._draw.rectangle([edge * SCALE for edge in edges], fill=color)

    def dot(self, middle: tuple[float, float], color: str) -> None:
        centre = (middle[0] * SCALE, middle[1] * SCALE)
        self._draw.circle(centre, DOT_RADIUS * SCALE, fill=color, outline="white", width=SCALE)

    def dashes(self, place: float, top: float, bottom: float) -> None:
        for start in range(int(top), int(bottom), 8):
            self.box((place - 0.5, start, place + 0.5, min(start + 4, bottom)), GREY)

    def finished(self) -> Image.Image:
        return self._picture.resize(self._size, Image.Resampling.LANCZOS)
