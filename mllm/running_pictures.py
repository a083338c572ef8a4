"""Pictures that are being drawn, one visual token of each at a time.

Per visual token: the decoder's hidden states -> visual head, K sub-codes -> visual embedder. All
that is kept of a picture lies in buffers that stay in place, and no step waits for a value to
reach the host.

Shapes: B pictures that are being drawn, P pictures that there is room for, N rows (one or two for
each picture: with the prompt, and without it for guidance), L visual tokens, K codebooks, H heads,
D decoder width, E head width.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mllm.model import UniTokMLLM
from mllm.numbering import put_in, take_out
from mllm.running_rows import Row, RunningRows
from mllm.sampling import SamplingParams, SubCodeSampler
from mllm.visual_head import HeadCache

Projection = Literal["cached", "single"]


class Picture:
    """One picture in work, drawn behind rows that have been read up to begin-of-image."""

    def __init__(self, rows: Sequence[Row], sampling: SamplingParams, noise_LK: Tensor) -> None:
        """`rows`: with the prompt and, if the picture is guided, without it."""
        assert len(rows) == 1 + sampling.is_guided
        self.rows = rows
        self.sampling = sampling
        self.noise_LK = noise_LK
        self.number: int | None = None  # None: not open
        self.num_drawn = 0  # visual tokens


class DrawnBuffers:
    """What is kept of pictures: their noise and codes, the last token, and all as projected."""

    def __init__(self, model: UniTokMLLM, num_pictures: int) -> None:
        config, like = model.config, model.decoder.norm.weight
        tokens = (num_pictures, config.num_visual_tokens)
        attention = model.visual_embedder.projection.attn
        heads = (num_pictures, attention.num_heads, config.num_visual_tokens, attention.head_dim)
        with torch.inference_mode(False):  # else only code in that mode could write to them
            self.noise_PLK = like.new_zeros(*tokens, config.num_codebooks, dtype=torch.float32)
            self.codes_PLK = like.new_zeros(*tokens, config.num_codebooks, dtype=torch.long)
            self.embeds_PD = like.new_zeros(num_pictures, config.text_config.hidden_size)
            self.keys_PHLE = like.new_zeros(heads)
            self.values_PHLE = like.new_zeros(heads)

    def copy_all(self, source: "DrawnBuffers") -> None:
        for own, other in zip(vars(self).values(), vars(source).values(), strict=True):
            own[: len(other)] = other

    def move(self, source: int, target: int) -> None:
        for buffer in vars(self).values():
            buffer[target] = buffer[source]


class TokensBefore:
    """The visual tokens of each picture before a new one, for the embedder's projection."""

    def __init__(self, buffers: DrawnBuffers, positions_B: Tensor) -> None:
        self.buffers = buffers
        self.positions_B = positions_B

    def append(
        self, keys_BH1E: Tensor, values_BH1E: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        keys_PHLE, values_PHLE = self.buffers.keys_PHLE, self.buffers.values_PHLE
        count, num_tokens = len(self.positions_B), keys_PHLE.shape[2]
        pictures_B = torch.arange(count, device=keys_PHLE.device)
        keys_PHLE[pictures_B, :, self.positions_B] = keys_BH1E[:, :, 0]
        values_PHLE[pictures_B, :, self.positions_B] = values_BH1E[:, :, 0]
        tokens_L = torch.arange(num_tokens, device=keys_PHLE.device)
        is_seen_B11L = (tokens_L <= self.positions_B[:, None])[:, None, None]
        return keys_PHLE[:count], values_PHLE[:count], is_seen_B11L


class RunningPictures:
    """All pictures in work."""

    def __init__(self, model: UniTokMLLM, *, projection: Projection = "cached") -> None:
        if projection not in get_args(Projection):
            raise ValueError(f"projection must be cached or single, got {projection!r}")
        self.model = model
        self.projection = projection
        self.pictures: list[Picture] = []
        self.num_drawn = 0  # visual tokens of all pictures so far
        self._buffers = DrawnBuffers(model, 0)
        self._head_cache = HeadCache(model.visual_head)
        self._sampler: SubCodeSampler | None = None  # None: the pictures have changed

    def open(self, picture: Picture) -> None:
        """Begin a picture."""
        picture.num_drawn = 0
        put_in(self.pictures, picture)
        if len(self.pictures) > len(self._buffers.codes_PLK):
            grown = DrawnBuffers(self.model, max(len(self.pictures), 2 * len(self.pictures) - 2))
            grown.copy_all(self._buffers)
            self._buffers = grown
        self._buffers.noise_PLK[picture.number] = picture.noise_LK
        self._sampler = None

    def close(self, picture: Picture) -> None:
        """Free the place of an open picture."""
        if move := take_out(self.pictures, picture):
            self._buffers.move(move.source, move.target)
        self._sampler = None

    def codes(self, picture: Picture) -> Tensor:
        """A copy of the codes (n, K) of an open picture so far."""
        return self._buffers.codes_PLK[picture.number, : picture.num_drawn].clone()

    def embeds(self, picture: Picture) -> Tensor:
        """What the decoder reads of the last visual token of an open picture, (1, D)."""
        assert picture.number is not None
        return self._buffers.embeds_PD[picture.number : picture.number + 1].clone()

    def draw(self, rows: RunningRows) -> None:
        """Draw the next visual token of each picture from the hidden states of its rows."""
        if self._sampler is None:
            settings = [picture.sampling for picture in self.pictures]
            self._sampler = SubCodeSampler(settings, rows.hidden_RD.device)
        guided = [picture for picture in self.pictures if picture.sampling.is_guided]
        own = [picture.rows[0] for picture in self.pictures]
        hidden_ND = rows.hidden([*own, *(picture.rows[1] for picture in guided)])
        drawn = [picture.num_drawn for picture in self.pictures]
        positions_B = torch.tensor(drawn, device=hidden_ND.device)
        self._head_cache.reserve(len(hidden_ND))
        draw_token(
            self.model,
            hidden_ND,
            positions_B,
            sampler=self._sampler,
            buffers=self._buffers,
            head_cache=self._head_cache,
            projection=self.projection,
        )
        for picture in self.pictures:
            picture.num_drawn += 1
        self.num_drawn += len(self.pictures)


def draw_token(
    model: UniTokMLLM,
    hidden_ND: Tensor,
    positions_B: Tensor,
    *,
    sampler: SubCodeSampler,
    buffers: DrawnBuffers,
    head_cache: HeadCache,
    projection: Projection,
) -> None:
    """Into the buffers: codes of a visual token of each picture, and their embeddings."""
    count = len(positions_B)
    pictures_B = torch.arange(count, device=positions_B.device)
    noise_BK = buffers.noise_PLK[pictures_B, positions_B]
    noise = iter(noise_BK.unbind(dim=1))
    codes_NK = model.visual_head.generate(
        hidden_ND, lambda logits_NV: sampler(logits_NV, next(noise)), cache=head_cache
    )
    codes_BK = codes_NK[:count]
    buffers.codes_PLK[pictures_B, positions_B] = codes_BK
    before = TokensBefore(buffers, positions_B) if projection == "cached" else None
    embeds_B1D = model.visual_embedder(codes_BK.unsqueeze(1), before)
    buffers.embeds_PD[:count] = embeds_B1D[:, 0]
