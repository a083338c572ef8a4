"""Drawing a picture as a program for the batcher.

Shapes: T context length, D decoder width, L visual tokens, K codebooks, n visual tokens drawn.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from mllm.batcher import DrawRow, Read, Wish
from mllm.config import UniTokMLLMConfig
from mllm.running_pictures import Picture
from mllm.running_rows import Row
from mllm.sampling import SamplingParams, build_noise

OnCodes: TypeAlias = Callable[[Tensor], None]  # codes (n, K) of the rows of the grid so far


@dataclass(frozen=True, eq=False)
class DrawnPicture:
    """A picture as the decoder knows it."""

    codes_LK: Tensor
    last_1D: Tensor  # its last visual token, which the decoder has not read


def draw_contexts(
    contexts: Sequence[Tensor], sampling: SamplingParams, *, seed: int, config: UniTokMLLMConfig
) -> Generator[Wish, Any, Tensor]:
    """Codes (L, K) of the picture behind embeddings (T, D) up to begin-of-image.

    `contexts`: with the prompt and, if the picture is guided, without it.
    """
    rows = [Row() for _ in contexts]
    yield Read(list(zip(rows, contexts, strict=True)))
    drawn = yield from draw_behind(rows, sampling, seed=seed, config=config)
    return drawn.codes_LK


def draw_behind(
    rows: Sequence[Row],
    sampling: SamplingParams,
    *,
    seed: int,
    config: UniTokMLLMConfig,
    on_row: OnCodes | None = None,
) -> Generator[Wish, Any, DrawnPicture]:
    """The picture behind rows that have been read up to begin-of-image."""
    noise_LK = build_noise([seed], config.num_visual_tokens, config.num_codebooks)[0]
    picture = Picture(rows, sampling, noise_LK)
    for _ in range(config.grid[0]):
        drawn = yield DrawRow(picture)
        if on_row is not None:
            on_row(drawn.codes_nK)
    return DrawnPicture(drawn.codes_nK, drawn.last_1D)
