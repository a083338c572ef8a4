"""Pictures above what a tokenizer made of them."""

from PIL import Image

from mllm.pictures import make_grid

COLUMNS = 8


def reconstruction_grid(originals: list[Image.Image], rebuilt: list[Image.Image]) -> Image.Image:
    """Rows of originals, each with its reconstructions below."""
    columns = min(COLUMNS, len(originals))
    pictures = []
    for start in range(0, len(originals) - columns + 1, columns):
        pictures += originals[start : start + columns] + rebuilt[start : start + columns]
    return make_grid(pictures, columns=columns)
