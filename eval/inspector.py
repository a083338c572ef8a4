"""Reads a drawn picture back into objects, from its pixels alone.

The background is fitted as a plane through the picture's border, what differs from it is cut into
connected pieces, and each piece is compared with all eight shapes drawn at its place and area. The
best overlap is the score: a piece that looks like nothing still is reported, with a low score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import hypot

import numpy as np
from scipy import ndimage

from eval.scenes import COLORS, PALETTE, SIZE_BOUNDARY, Scene
from eval.shapes import SHAPES, shape_mask

# Shapes keep 2.5 % of the side free; a slimmer ring is all background, even after a blur.
BORDER_SHARE = 0.02
# A drawn background stays within 15 levels * sqrt(3) / 2 + 7 = 20 of its fitted plane and objects
# are at least 65 from its shades, so 32 leaves room for noise on either side.
FOREGROUND_DISTANCE = 32.0
# The smallest drawn shape (a small star) covers 1.4 % of a picture. A third of it is a fragment
# worth reporting, anything less is a speck.
MIN_AREA_SHARE = 0.005
# Blends of object and background are stretched so that patterns (up to 0.2 towards an object) count
# as background; symmetric, so that edges stay where they are.
SOFT_EDGE = (0.2, 0.8)
# A colour counts fully up to this distance from the palette (jitter 7, blur and reconstruction
# shifts of some 20) and not at all from the limit on, where naming any colour is a guess.
COLOR_TOLERANCE = 30.0
COLOR_LIMIT = 130.0
# A second colour inside one piece must be this close to the palette to be an object of its own.
INNER_COLOR_LIMIT = 60.0
# Least scores measured: 0.86 on clean renders at 64 px, 0.70 after a blur of one pixel there.
MIN_SCORE = 0.6
# The largest drawn radius is 0.21 of the side. What is far larger is no object of this world but a
# blot (a picture of pure noise makes one), however well a shape happens to fit it.
MAX_RADIUS = 0.26
# Middles of two equal objects are at least 0.26 of the side apart, so this cannot confuse them.
CENTER_TOLERANCE = 0.05

_PALETTE = np.array([PALETTE[color] for color in COLORS], np.float32)


@dataclass(frozen=True)
class InspectedObject:
    """One object found. `box` is in pixels (x0, y0, x1, y1), right and bottom exclusive; `x`, `y`
    (middle) and `radius` are fractions of the side; `score` 0..1 tells how well it is drawn.
    """

    shape: str
    color: str
    size: str
    box: tuple[int, int, int, int]
    score: float
    x: float
    y: float
    radius: float


def inspect(image: np.ndarray) -> list[InspectedObject]:
    """All objects of a square RGB picture, uint8 (H, W, 3), from top to bottom."""
    if image.ndim != 3 or image.shape[2] != 3 or image.shape[0] != image.shape[1]:
        raise ValueError(
            f"expected a square RGB picture (H, H, 3), got {image.shape}; "
            "convert it to RGB and crop it to a square first"
        )
    if image.dtype != np.uint8:
        raise ValueError(f"expected uint8 pixels 0..255, got {image.dtype}; scale and convert it")
    pixels = image.astype(np.float32)
    background = _fit_background(pixels)
    distance = np.sqrt(np.square(pixels - background).sum(-1))
    return [
        _identify(pixels, background, piece)
        for piece in _pieces(pixels, distance)
    ]  # fmt: skip


def same_objects(found: Sequence[InspectedObject], scene: Scene) -> bool:
    """Whether exactly the scene's objects were found: shape, colour, size and place all right.

    Every object found must reach `MIN_SCORE` and lie within `CENTER_TOLERANCE` of its counterpart.
    """
    if len(found) != len(scene.objects):
        return False
    rest = [item for item in found if item.score >= MIN_SCORE]
    for wanted in scene.objects:
        looks = (wanted.shape, wanted.color, wanted.size)
        match = next(
            (
                item
                for item in rest
                if (item.shape, item.color, item.size) == looks
                and hypot(item.x - wanted.x, item.y - wanted.y) <= CENTER_TOLERANCE
            ),
            None,
        )
        if match is None:
            return False
        rest.remove(match)
    return True


# ---- background ----------------------------------------------------------------------------------


def _fit_background(pixels: np.ndarray) -> np.ndarray:
    """A plane per channel through the border pixels, float32 (H, W, 3)."""
    terms, ring = _plane_terms(pixels.shape[0])
    border_terms, border = terms[ring], pixels[ring]
    plane = np.median(border, axis=0)[None] * np.array([[1], [0], [0]], np.float32)
    for _ in range(2):  # the second fit leaves out what the first shows to be no background
        error = np.sqrt(np.square(border - border_terms @ plane).sum(-1))
        kept = error < 2 * FOREGROUND_DISTANCE
        if kept.sum() < len(border) // 4:
            break  # no common background: stay with what was found so far
        plane = np.linalg.lstsq(border_terms[kept], border[kept], rcond=None)[0]
    return terms @ plane


@lru_cache(maxsize=8)
def _plane_terms(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(1, x, y) of every pixel, float32 (H, W, 3), and which pixels are border, bool (H, W)."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    width = max(1, round(BORDER_SHARE * side))
    ring = np.ones((side, side), bool)
    ring[width:-width, width:-width] = False
    return np.stack([np.ones_like(x), x, y], axis=-1), ring


# ---- pieces --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A connected region of one colour: its window in the picture, its mask there, its colour."""

    window: tuple[slice, slice]
    mask: np.ndarray
    rgb: np.ndarray


def _pieces(pixels: np.ndarray, distance: np.ndarray) -> list[_Piece]:
    """Connected regions apart from the background, divided where two colours touch."""
    min_area = MIN_AREA_SHARE * distance.size
    labels, _ = ndimage.label(distance > FOREGROUND_DISTANCE, structure=np.ones((3, 3)))
    pieces = []
    for number, window in enumerate(ndimage.find_objects(labels), start=1):
        mask = labels[window] == number
        if mask.sum() >= min_area:
            pieces += _divide(pixels[window], mask, distance[window], window, min_area=min_area)
    return pieces


def _divide(
    pixels: np.ndarray,
    mask: np.ndarray,
    distance: np.ndarray,
    window: tuple[slice, slice],
    *,
    min_area: float,
) -> list[_Piece]:
    """The piece itself, or its parts where two colours touch or only faint halos do."""
    core = ndimage.binary_erosion(mask)
    if core.sum() < min_area / 2:  # too thin to erode: the half farthest from the background
        core = mask & (distance >= np.median(distance[mask]))
    inner = _inner_colors(pixels, core, min_area=min_area)
    if len(inner) < 2:
        typical = np.median(distance[core])
        # A blur dilutes the colour of slim shapes: the farther half is the less diluted one.
        rgb = np.median(pixels[core & (distance >= typical)], axis=0)
        parts = _parts(mask & (distance > typical / 2), min_area=min_area)
        return [_Piece(window, part, rgb) for part in (parts if len(parts) > 1 else [mask])]
    owner = np.square(pixels[..., None, :] - _PALETTE[list(inner)]).sum(-1).argmin(-1)
    return [
        _Piece(window, part, np.median(pixels[region], axis=0))
        for index, region in enumerate(inner.values())
        for part in _parts(_opened(mask & (owner == index)), min_area=min_area)
    ]


def _inner_colors(
    pixels: np.ndarray, core: np.ndarray, *, min_area: float
) -> dict[int, np.ndarray]:
    """Regions of the core by palette colour, those with a solid area only.

    A blurred rim passes through other colours on its way to the background, but never close to one
    for long: the distance limit and the opening remove it.
    """
    squares = np.square(pixels[..., None, :] - _PALETTE).sum(-1)
    nearest = np.where(core & (squares.min(-1) < INNER_COLOR_LIMIT**2), squares.argmin(-1), -1)
    counts = np.bincount(nearest.ravel() + 1, minlength=len(COLORS) + 1)[1:]
    regions = {
        color: _opened(nearest == color)
        for color in range(len(COLORS))
        if counts[color] >= min_area
    }  # fmt: skip
    return {color: region for color, region in regions.items() if region.sum() >= min_area}


def _parts(mask: np.ndarray, *, min_area: float) -> list[np.ndarray]:
    """Connected parts of a mask, specks left out."""
    labels, _ = ndimage.label(mask)
    areas = np.bincount(labels.ravel())
    return [labels == number for number in range(1, len(areas)) if areas[number] >= min_area]


def _opened(mask: np.ndarray) -> np.ndarray:
    """The mask without bands and specks slimmer than three pixels."""
    return ndimage.binary_opening(mask, structure=np.ones((3, 3)))


def _nearest_color(rgb: np.ndarray) -> np.ndarray:
    """Index of the nearest palette colour for pixels (N, 3)."""
    return np.square(rgb[:, None] - _PALETTE).sum(-1).argmin(-1)


# ---- identification ------------------------------------------------------------------------------


def _identify(pixels: np.ndarray, background: np.ndarray, piece: _Piece) -> InspectedObject:
    side = pixels.shape[0]
    coverage, left, top = _coverage(pixels, background, piece)
    area = coverage.sum()
    rows, columns = np.indices(coverage.shape) + 0.5
    center = (
        left + float((columns * coverage).sum() / area),
        top + float((rows * coverage).sum() / area),
    )
    fits = [_fit(shape, coverage, (left, top), center) for shape in SHAPES]
    overlap, shape, (x, y, radius) = max(fits)
    color = int(_nearest_color(piece.rgb[None])[0])
    error = float(np.linalg.norm(piece.rgb - _PALETTE[color]))
    trust = np.clip((COLOR_LIMIT - error) / (COLOR_LIMIT - COLOR_TOLERANCE), 0, 1)
    ys, xs = np.nonzero(coverage >= 0.5)
    return InspectedObject(
        shape=shape,
        color=COLORS[color],
        size="small" if radius / side < SIZE_BOUNDARY else "large",
        box=(
            left + int(xs.min()), top + int(ys.min()),
            left + int(xs.max()) + 1, top + int(ys.max()) + 1,
        ),
        score=float(overlap * trust) if radius <= MAX_RADIUS * side else 0.0,
        x=x / side,
        y=y / side,
        radius=radius / side,
    )  # fmt: skip


def _coverage(
    pixels: np.ndarray, background: np.ndarray, piece: _Piece
) -> tuple[np.ndarray, int, int]:
    """How much of each pixel the object covers, 0..1, in a window two pixels wider; left, top."""
    rows, columns = piece.window
    top, left = max(0, rows.start - 2), max(0, columns.start - 2)
    wide = (slice(top, rows.stop + 2), slice(left, columns.stop + 2))
    ground = background[wide]
    mask = np.zeros(ground.shape[:2], bool)
    offset_y, offset_x = rows.start - top, columns.start - left
    height, width = piece.mask.shape
    mask[offset_y : offset_y + height, offset_x : offset_x + width] = piece.mask
    direction = piece.rgb - ground
    blend = ((pixels[wide] - ground) * direction).sum(-1) / np.square(direction).sum(-1).clip(1)
    low, high = SOFT_EDGE
    # One pixel around the piece catches soft edges and keeps neighbours out.
    near = ndimage.binary_dilation(mask)
    coverage = np.where(near, np.clip((blend - low) / (high - low), 0, 1), 0)
    return (coverage if (coverage >= 0.5).any() else mask.astype(np.float32)), left, top


def _fit(
    shape: str, coverage: np.ndarray, corner: tuple[int, int], center: tuple[float, float]
) -> tuple[float, str, tuple[float, float, float]]:
    """Overlap 0..1 with a shape of the same area and centre of mass; its middle and radius."""
    unit_area, unit_x, unit_y = _moments(shape)
    radius = float(np.sqrt(coverage.sum() / unit_area))
    x, y = center[0] - unit_x * radius, center[1] - unit_y * radius
    mask, left, top = shape_mask(shape, x, y, radius)
    (left_0, top_0), (height_0, width_0) = corner, coverage.shape
    x0, y0 = max(left, left_0), max(top, top_0)
    x1 = max(x0, min(left + mask.shape[1], left_0 + width_0))
    y1 = max(y0, min(top + mask.shape[0], top_0 + height_0))
    shared = np.minimum(
        mask[y0 - top : y1 - top, x0 - left : x1 - left],
        coverage[y0 - top_0 : y1 - top_0, x0 - left_0 : x1 - left_0],
    ).sum()
    return float(shared / (mask.sum() + coverage.sum() - shared)), shape, (x, y, radius)


@lru_cache(maxsize=len(SHAPES))
def _moments(shape: str) -> tuple[float, float, float]:
    """Area and centre of mass of a shape with radius one."""
    radius = 100.0
    mask, left, top = shape_mask(shape, 0.0, 0.0, radius)
    rows, columns = np.indices(mask.shape) + 0.5
    area = mask.sum()
    x, y = (columns * mask).sum() / area + left, (rows * mask).sum() / area + top
    return float(area / radius**2), float(x / radius), float(y / radius)
