"""The eight shapes of the drawn world, as polygons around (0, 0) for a radius of one.

Every outline is shifted so that the middle of its bounding box is the origin: an object's position
is then the middle of its box, which is what relative positions are judged by.
"""

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring", "diamond")
NUM_CURVE_POINTS = 48  # a polygon this fine leaves a circle of 27 px by 0.06 px
RING_HOLE = 0.56  # inner radius: the hole stays open at 64 px and the band stays solid

SUPERSAMPLING = 4  # edges are drawn at four times the size and averaged


def _circle(radius: float = 1.0) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, NUM_CURVE_POINTS, endpoint=False)
    return radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _star() -> np.ndarray:
    angles = np.pi * (np.arange(10) / 5 - 0.5)
    radii = np.where(np.arange(10) % 2 == 0, 1.16, 0.48)
    return radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, NUM_CURVE_POINTS, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 15.5


def _cross(arm: float = 0.36) -> np.ndarray:
    quarter = np.array([(arm, -1), (arm, -arm), (1, -arm)])
    turn = np.array([(0, 1), (-1, 0)])
    return np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])


def _centred(points: np.ndarray) -> np.ndarray:
    return points - (points.min(axis=0) + points.max(axis=0)) / 2


_OUTLINES: dict[str, tuple[tuple[np.ndarray, int], ...]] = {
    "circle": ((_circle(), 255),),
    "square": ((np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.86, 255),),
    "triangle": ((_centred(np.array([(0, -1), (1.06, 0.86), (-1.06, 0.86)])), 255),),
    "star": ((_centred(_star()), 255),),
    "heart": ((_centred(_heart()), 255),),
    "cross": ((_cross(), 255),),
    "ring": ((_circle(), 255), (_circle(RING_HOLE), 0)),
    "diamond": ((np.array([(0, -1.16), (0.82, 0), (0, 1.16), (-0.82, 0)]), 255),),
}

# Half width and half height of the box, and distance of the farthest point, for radius one.
EXTENTS: dict[str, tuple[float, float]] = {
    shape: (float(parts[0][0][:, 0].max()), float(parts[0][0][:, 1].max()))
    for shape, parts in _OUTLINES.items()
}
REACH: dict[str, float] = {
    shape: float(np.linalg.norm(parts[0][0], axis=1).max()) for shape, parts in _OUTLINES.items()
}


def outlines(shape: str) -> tuple[tuple[np.ndarray, int], ...]:
    """Polygons (N, 2) to draw one over the other, each with its fill (255 in, 0 out)."""
    if shape not in _OUTLINES:
        raise ValueError(f"unknown shape {shape!r}; expected one of {', '.join(SHAPES)}")
    return _OUTLINES[shape]


def shape_mask(shape: str, x: float, y: float, radius: float) -> tuple[np.ndarray, int, int]:
    """Coverage 0..1 of a shape in pixels, float32 (h, w), and the pixel (left, top) it starts at.

    The window is the shape's box rounded outwards; it may leave the picture.
    """
    parts = outlines(shape)
    half_width, half_height = (radius * extent for extent in EXTENTS[shape])
    left, top = int(np.floor(x - half_width)), int(np.floor(y - half_height))
    width = int(np.ceil(x + half_width)) - left
    height = int(np.ceil(y + half_height)) - top
    canvas = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    draw = ImageDraw.Draw(canvas)
    # PIL puts integer coordinates at pixel centres: half a fine pixel lies between the two systems.
    origin = np.array([x - left, y - top]) * SUPERSAMPLING - 0.5
    for points, fill in parts:
        corners = points * (radius * SUPERSAMPLING) + origin
        draw.polygon(corners.ravel().tolist(), fill=fill)
    return np.asarray(canvas.reduce(SUPERSAMPLING), np.float32) / 255, left, top
