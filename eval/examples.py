"""The example pictures that ship with the package, as scenes that can be drawn again.

`unitok chat --image example:NAME` opens them; the demo knows their content from here.
"""

import random
from pathlib import Path

from PIL import Image

from eval.scenes import Scene, compose, render
from mllm.pictures import EXAMPLES_FOLDER, save_png

EXAMPLE_SIZE = 256  # pixels: pleasant to look at, and reduced by whatever model reads them

# (shape, colour) of every object; the looks in "unseen" are both kept out of training.
_LOOKS: dict[str, tuple[tuple[str, str], ...]] = {
    "star": (("star", "red"),),
    "pair": (("triangle", "green"), ("circle", "orange")),
    "hearts": (("heart", "red"), ("heart", "red"), ("heart", "red")),
    "rings": (("ring", "black"), ("ring", "white"), ("triangle", "pink")),
    "shapes": (("circle", "blue"), ("square", "yellow"), ("heart", "white"), ("diamond", "purple")),
    "unseen": (("circle", "purple"), ("star", "green")),
}
EXAMPLES = tuple(_LOOKS)


def example_scene(name: str) -> Scene:
    """The content of an example picture: always the same."""
    if name not in _LOOKS:
        raise ValueError(f"no example is called {name!r}; choose one of {', '.join(EXAMPLES)}")
    return compose(random.Random(f"example picture:{name}"), _LOOKS[name])


def draw_example(name: str) -> Image.Image:
    """An example picture as it ships."""
    return Image.fromarray(render(example_scene(name), EXAMPLE_SIZE))


def write_examples(folder: Path = EXAMPLES_FOLDER) -> None:
    """Write every example picture as NAME.png."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLES:
        save_png(draw_example(name), folder / f"{name}.png")
