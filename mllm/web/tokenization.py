"""What the tokenizer keeps of a picture: its codes, what they decode to, and what is lost.

Shapes: L visual tokens of a grid (h, w), K codebooks of V entries.
"""

import math
from dataclasses import dataclass

from PIL import Image, ImageChops
from torch import Tensor

from mllm.codec import Reconstruction, reconstruct
from mllm.pictures import read_pixels
from mllm.pipeline import Pipeline

DIFFERENCE_GAIN = 4  # differences are shown so many times as large
BITS_OF_A_PIXEL = 24


@dataclass(frozen=True, eq=False)
class Tokenization:
    """A picture with its codes, and how good and how small they are."""

    pictures: Reconstruction
    grid: tuple[int, int]
    codebook_size: int

    @property
    def num_codes(self) -> int:
        return self.pictures.codes.numel()

    @property
    def bits_per_pixel(self) -> float:
        num_bits = self.num_codes * math.log2(self.codebook_size)
        return num_bits / (self.pictures.original.width * self.pictures.original.height)

    @property
    def ratio(self) -> float:
        """How many times smaller the codes are than the pixels."""
        return BITS_OF_A_PIXEL / self.bits_per_pixel

    @property
    def difference(self) -> Image.Image:
        """What is lost, made more visible."""
        lost = ImageChops.difference(self.pictures.original, self.pictures.decoded)
        return lost.point(lambda level: min(255, level * DIFFERENCE_GAIN))

    @property
    def code_maps(self) -> list[Tensor]:
        """The sub-codes of each codebook where they stand, K times (h, w)."""
        return list(self.pictures.codes.unflatten(0, self.grid).unbind(dim=-1))


def tokenize(pipeline: Pipeline, picture: Image.Image) -> Tokenization:
    """Encode a picture as the model sees it, and decode it again."""
    tokenizer = pipeline.tokenizer
    recipe = pipeline.model.config.image_recipe
    _, pixels = read_pixels(picture, recipe, image_size=pipeline.image_size)
    return Tokenization(
        reconstruct(tokenizer, pixels.to(tokenizer.device)),
        grid=tokenizer.grid(pixels),
        codebook_size=tokenizer.config.codebook_size,
    )
