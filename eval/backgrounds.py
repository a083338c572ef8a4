"""The muted, low-contrast backgrounds of the drawn world."""

import random
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RGB = tuple[int, int, int]

# Base shade of every background; at least 95 levels from every object colour.
BACKGROUNDS: dict[str, RGB] = {
    "grey": (158, 160, 164),
    "beige": (204, 190, 160),
    "pale blue": (156, 186, 212),
    "mint": (160, 204, 182),
    "lavender": (180, 170, 208),
    "sage": (158, 172, 140),
    "slate": (126, 140, 158),
}
PATTERNS = ("plain", "gradient", "striped", "checked", "dotted")
SHADE_JITTER = 4  # levels per channel, so that no exact shade can be memorised
SHADE_SHIFT = (9, 15)  # levels between the two shades of a pattern: visible, yet low contrast


@dataclass(frozen=True)
class Background:
    """Two close shades and how they mix; `angle` is one of four directions (0..3)."""

    name: str
    pattern: str
    first: RGB
    second: RGB
    angle: int
    period: float


def jitter(rng: random.Random, color: RGB, *, spread: int) -> RGB:
    """The colour moved by up to `spread` levels in every channel."""
    red, green, blue = (min(255, max(0, c + rng.randint(-spread, spread))) for c in color)
    return red, green, blue


def sample_background(rng: random.Random) -> Background:
    """A random background: every name and every pattern equally often."""
    name = rng.choice(tuple(BACKGROUNDS))
    pattern = rng.choice(PATTERNS)
    first = jitter(rng, BACKGROUNDS[name], spread=SHADE_JITTER)
    # Half the shift to either side keeps both shades close to the named one.
    shift = rng.randint(*SHADE_SHIFT) * rng.choice((-1, 1))
    first, second = (
        (c[0] + way, c[1] + way, c[2] + way)
        for c, way in ((first, -shift // 2), (first, shift // 2))
    )
    return Background(name, pattern, first, second, rng.randrange(4), rng.uniform(0.14, 0.24))


def draw_background(background: Background, image_size: int) -> np.ndarray:
    """Background as float32 (image_size, image_size, 3)."""
    weight = _pattern_weight(background, image_size)[..., None]
    first, second = (np.asarray(c, np.float32) for c in (background.first, background.second))
    return first + weight * (second - first)


def _pattern_weight(background: Background, image_size: int) -> np.ndarray:
    """Share of the second shade at every pixel, float32 (image_size, image_size) in 0..1."""
    along, across = _axes(image_size, background.angle)
    waves = 2 * np.pi / background.period
    match background.pattern:
        case "plain":
            return np.zeros((image_size, image_size), np.float32)
        case "gradient":
            return np.broadcast_to(along, (image_size, image_size))
        case "striped":
            return 0.5 + 0.5 * np.clip(2 * np.sin(along * waves), -1, 1)
        case "checked":
            product = np.sin(along * waves) * np.sin(across * waves)
            return 0.5 + 0.5 * np.clip(5 * product, -1, 1)
        case _:
            product = np.cos(along * waves) + np.cos(across * waves)
            return np.clip(3 * (product - 1), 0, 1)


@lru_cache(maxsize=64)
def _axes(image_size: int, angle: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates 0..1 along a direction and across it, float32 (image_size, image_size)."""
    across, along = (np.mgrid[:image_size, :image_size].astype(np.float32) + 0.5) / image_size
    if angle == 1:
        return across, along
    if angle == 2:
        return (along + across) / 2, (along - across) / 2
    if angle == 3:
        return (along - across + 1) / 2, (along + across) / 2
    return along, across
