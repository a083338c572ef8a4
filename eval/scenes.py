"""The drawn world: an endless, seeded source of simple pictures whose content is known exactly.

A scene holds one to four flat shapes on a muted background. Geometry is stored as fractions of the
side, so one scene can be drawn at any size. Some colour-shape pairs and some pairs of shapes never
occur in training scenes; they measure whether a model combines what it learned.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import hypot
from typing import Literal

import numpy as np

from eval.backgrounds import RGB, Background, draw_background, jitter, sample_background
from eval.shapes import EXTENTS, REACH, SHAPES, shape_mask

Split = Literal["train", "held_out"]
Relation = Literal["left of", "right of", "above", "below"]
Box = tuple[float, float, float, float]

# The ten GenEval colours; the closest two (yellow, orange) are 90 levels apart.
PALETTE: dict[str, RGB] = {
    "red": (214, 32, 38),
    "orange": (248, 134, 20),
    "yellow": (250, 222, 40),
    "green": (28, 146, 58),
    "blue": (32, 72, 208),
    "purple": (122, 40, 164),
    "pink": (255, 112, 180),
    "brown": (112, 62, 28),
    "black": (22, 22, 24),
    "white": (254, 254, 254),
}
COLORS = tuple(PALETTE)
COLOR_JITTER = 4  # levels per channel, so that no exact value can be memorised

# Guaranteed between any background pixel and any object colour: 95 less both deviations.
MIN_BACKGROUND_DISTANCE = 65


SIZES: dict[str, tuple[float, float]] = {"small": (0.11, 0.13), "large": (0.17, 0.21)}
SIZE_BOUNDARY = 0.15  # radius half-way between the two classes
MAX_OBJECTS = 4
GAP = 0.04  # least distance between two bounding circles: 5 px at 128
BORDER = 0.025  # least distance of a shape from the picture's edge

# Every shape once, eight of the ten colours once.
HELD_OUT_COLOR_SHAPES = frozenset({
    ("purple", "circle"), ("orange", "square"), ("blue", "triangle"), ("green", "star"),
    ("yellow", "heart"), ("red", "cross"), ("pink", "ring"), ("black", "diamond"),
})  # fmt: skip
HELD_OUT_SHAPE_PAIRS = frozenset({
    frozenset({"star", "square"}), frozenset({"circle", "cross"}), frozenset({"heart", "ring"}),
})  # fmt: skip

# GenEval calls a relation true beyond half of the offset's length, after a dead zone of this share
# of both boxes' sides.
POSITION_DEAD_ZONE = 0.1
# What the drawn world states holds beyond the first value, what it denies stays below the second.
CLEARLY_TRUE = 0.6
CLEARLY_FALSE = 0.4


@dataclass(frozen=True)
class SceneObject:
    """One shape. `x`, `y` are the middle of its box; `rgb` is its jittered colour."""

    shape: str
    color: str
    size: str
    x: float
    y: float
    radius: float
    rgb: RGB

    @property
    def box(self) -> Box:
        """Bounding box (x0, y0, x1, y1) as fractions of the side."""
        half_width, half_height = (self.radius * extent for extent in EXTENTS[self.shape])
        return (
            self.x - half_width, self.y - half_height, self.x + half_width, self.y + half_height
        )  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A picture's whole content; `render` needs nothing else."""

    objects: tuple[SceneObject, ...]
    background: Background


# ---- what training may contain -------------------------------------------------------------------


def is_held_out_pair(color: str, shape: str) -> bool:
    """Whether this colour-shape pair never occurs in training."""
    return (color, shape) in HELD_OUT_COLOR_SHAPES


def is_held_out_shape_pair(first: str, second: str) -> bool:
    """Whether these two shapes never occur together in training."""
    return frozenset((first, second)) in HELD_OUT_SHAPE_PAIRS


def is_held_out(scene: Scene) -> bool:
    """Whether the scene contains any held-out combination."""
    looks = [(item.shape, item.color) for item in scene.objects]
    return _has_held_out(looks)


def _has_held_out(looks: Sequence[tuple[str, str]]) -> bool:
    return any(is_held_out_pair(color, shape) for shape, color in looks) or any(
        is_held_out_shape_pair(a, b) for (a, _), (b, _) in combinations(looks, 2)
    )


# ---- sampling ------------------------------------------------------------------------------------


def scene_for(split: Split, index: int) -> Scene:
    """The `index`-th scene of a split: always the same one."""
    return sample_scene(random.Random(f"{split}:{index}"), split)


def sample_scene(
    rng: random.Random, split: Split = "train", *, num_objects: int | None = None
) -> Scene:
    """A random scene of a split, with one to four objects unless `num_objects` says how many."""
    check_split(split)
    if num_objects is None:
        num_objects = rng.randint(1, MAX_OBJECTS)
    elif not 1 <= num_objects <= MAX_OBJECTS:
        raise ValueError(
            f"num_objects must be 1..{MAX_OBJECTS}, got {num_objects}; omit it for a random number"
        )
    while True:
        looks = _sample_looks(rng, num_objects)
        if split == "held_out" and not _has_held_out(looks):
            looks = _with_held_out(rng, looks)
        if _has_held_out(looks) == (split == "held_out"):
            return compose(rng, looks)


def check_split(split: str) -> None:
    """Raise unless `split` is a split of the drawn world."""
    if split not in ("train", "held_out"):
        raise ValueError(f'split must be "train" or "held_out", got {split!r}')


def _sample_looks(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """(shape, colour) of each object; shapes and colours repeat often enough to be counted."""
    shapes = [rng.choice(SHAPES) for _ in range(count)]
    colors = [rng.choice(COLORS) for _ in range(count)]
    if rng.random() < 0.45:
        shapes = [shapes[0]] * count
        if count > 2 and rng.random() < 0.4:
            shapes[-1] = rng.choice(SHAPES)
    elif count == 2:
        shapes = rng.sample(SHAPES, 2)
    if rng.random() < 0.3:
        colors = [colors[0]] * count
        if count > 2 and rng.random() < 0.5:
            colors[-1] = rng.choice(COLORS)
    return list(zip(shapes, colors, strict=True))


def _with_held_out(rng: random.Random, looks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same looks with one held-out combination put in."""
    changed = list(looks)
    if len(looks) > 1 and rng.random() < 0.5:
        pair = sorted(rng.choice(sorted(sorted(pair) for pair in HELD_OUT_SHAPE_PAIRS)))
        rng.shuffle(pair)
        for place, shape in zip(rng.sample(range(len(looks)), 2), pair, strict=True):
            changed[place] = (shape, looks[place][1])
    else:
        color, shape = rng.choice(sorted(HELD_OUT_COLOR_SHAPES))
        changed[rng.randrange(len(looks))] = (shape, color)
    return changed


def compose(
    rng: random.Random,
    looks: Sequence[tuple[str, str]],
    *,
    accept: Callable[[Scene], bool] = lambda scene: True,
) -> Scene:
    """A scene with objects of these (shape, colour) looks, freely placed until `accept` agrees."""
    background = sample_background(rng)
    colors = [jitter(rng, PALETTE[color], spread=COLOR_JITTER) for _, color in looks]
    while True:
        places = _place(rng, [shape for shape, _ in looks])
        objects = tuple(
            SceneObject(shape, color, size, x, y, radius, rgb)
            for (shape, color), (size, x, y, radius), rgb in zip(looks, places, colors, strict=True)
        )
        scene = Scene(objects, background)
        if accept(scene):
            return scene


def _place(rng: random.Random, shapes: list[str]) -> list[tuple[str, float, float, float]]:
    """Size word, middle and radius for every shape, apart from each other and the border."""
    while True:
        placed: list[tuple[str, float, float, float]] = []
        for shape in shapes:
            size = rng.choice(("small", "large"))
            radius = rng.uniform(*SIZES[size])
            spot = _free_spot(rng, shape, radius, list(zip(shapes, placed, strict=False)))
            if spot is None:
                break
            placed.append((size, *spot, radius))
        if len(placed) == len(shapes):
            return placed


def _free_spot(
    rng: random.Random,
    shape: str,
    radius: float,
    taken: list[tuple[str, tuple[str, float, float, float]]],
) -> tuple[float, float] | None:
    """A random spot that keeps its distance; None when forty tries hit something."""
    margin_x, margin_y = (BORDER + radius * extent for extent in EXTENTS[shape])
    reach = radius * REACH[shape] + GAP
    for _ in range(40):
        x = margin_x + rng.random() * (1 - 2 * margin_x)
        y = margin_y + rng.random() * (1 - 2 * margin_y)
        if all(
            hypot(x - other_x, y - other_y) >= reach + other_radius * REACH[other]
            for other, (_, other_x, other_y, other_radius) in taken
        ):
            return x, y
    return None


# ---- relative positions --------------------------------------------------------------------------


def reduced_offset(a: Box, b: Box) -> tuple[float, float]:
    """GenEval's reduced, normalised offset (dx, dy) of box `a` from box `b`; (0, 0) for none."""
    offset = ((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2)
    spans = (a[2] - a[0] + b[2] - b[0], a[3] - a[1] + b[3] - b[1])
    length = hypot(*offset)
    if length == 0:
        return 0.0, 0.0
    dx, dy = (
        (1 if o > 0 else -1) * max(abs(o) - POSITION_DEAD_ZONE * span, 0) / length
        for o, span in zip(offset, spans, strict=True)
    )
    return dx, dy


def clear_relation(a: SceneObject, b: SceneObject) -> Relation | None:
    """Where `a` is seen from `b`, if exactly one relation holds with a clear margin."""
    dx, dy = reduced_offset(a.box, b.box)
    if abs(dx) > CLEARLY_TRUE and abs(dy) < CLEARLY_FALSE:
        return "left of" if dx < 0 else "right of"
    if abs(dy) > CLEARLY_TRUE and abs(dx) < CLEARLY_FALSE:
        return "above" if dy < 0 else "below"
    return None


# ---- drawing -------------------------------------------------------------------------------------


def render(scene: Scene, image_size: int) -> np.ndarray:
    """The scene as an RGB picture, uint8 (image_size, image_size, 3)."""
    if image_size < 16:
        raise ValueError(f"image_size must be at least 16 pixels, got {image_size}")
    picture = draw_background(scene.background, image_size)
    for item in scene.objects:
        mask, left, top = shape_mask(
            item.shape, item.x * image_size, item.y * image_size, item.radius * image_size
        )
        height, width = mask.shape
        region = picture[top : top + height, left : left + width]
        region += mask[..., None] * (np.asarray(item.rgb, np.float32) - region)
    return (picture + 0.5).astype(np.uint8)
