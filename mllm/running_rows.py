"""Rows of the decoder that are in work: where each stands in the buffers and how far it is.

Open rows are numbers 0, 1, ... without a gap, so that a step computes slices of the buffers: when
one closes, the last one moves into its place.

Shapes: M new positions of all rows, R rows, T positions, D decoder width, N layers, G key heads,
E head width.
"""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor
from transformers import LlamaModel

from mllm.fast_decoder import (
    LeadingRows,
    RaggedPlaces,
    Reading,
    build_rotation,
    read_one_each,
    read_positions,
)
from mllm.numbering import put_in, take_out
from mllm.row_buffers import RowBuffers


class Row:
    """One sequence of positions; its number in the buffers may change from step to step."""

    def __init__(self) -> None:
        self.number: int | None = None  # None: not open
        self.length = 0  # positions read

    @property
    def is_open(self) -> bool:
        return self.number is not None


POSITIONS_PER_BLOCK = 64  # lengths are rounded up to this, so that few different ones occur

NewPositions: TypeAlias = tuple[Row, Tensor]  # a row and what it reads next, (T, D)


class RunningRows:
    """All open rows, their buffers, and the hidden state behind the last position of each."""

    def __init__(self, stack: LlamaModel) -> None:
        self.stack = stack
        self.rows: list[Row] = []
        self.buffers = RowBuffers(stack)
        self.hidden_RD = self._allocate_hidden(0)
        self.num_reads = 0  # calls of the decoder so far
        self.num_positions = 0  # read in them

    def open(self, row: Row, known_N2GTE: Tensor | None = None) -> None:
        """Give a row a number, and the positions that it begins with as `keep` gave them."""
        row.length = 0 if known_N2GTE is None else known_N2GTE.shape[3]
        put_in(self.rows, row)
        self._reserve(row.length)
        if known_N2GTE is not None:
            self.buffers.write_row(len(self.rows) - 1, known_N2GTE)

    def keep(self, row: Row) -> Tensor:
        """A copy of the keys and values of all that an open row has read."""
        assert row.number is not None
        return self.buffers.read_row(row.number, length=row.length)

    def close(self, row: Row) -> None:
        """Free the place of an open row."""
        if move := take_out(self.rows, row):
            length = self.rows[move.target].length
            self.buffers.copy_row(move.source, move.target, length=length)
            self.hidden_RD[move.target] = self.hidden_RD[move.source]

    def hidden(self, rows: Sequence[Row]) -> Tensor:
        """Normed hidden states (N, D) behind the last positions of rows."""
        return self.hidden_RD[self._numbers(rows)]

    def read(self, news: Sequence[NewPositions]) -> None:
        """Let rows read on, all in one call of the decoder."""
        news = sorted(news, key=lambda new: new[0].number or 0)
        self._reserve(max(row.length + len(embeds_TD) for row, embeds_TD in news))
        hidden_MD = self._read(news)
        self.num_reads += 1
        self.num_positions += len(hidden_MD)
        ends = torch.tensor([len(embeds_TD) for _, embeds_TD in news]).cumsum(0) - 1
        numbers = self._numbers([row for row, _ in news])
        self.hidden_RD[numbers] = hidden_MD[ends.to(hidden_MD.device)]
        for row, embeds_TD in news:
            row.length += len(embeds_TD)

    def _reserve(self, num_positions: int) -> None:
        """Make room for all open rows and for so many positions in each."""
        self.buffers.reserve(len(self.rows), round_up(num_positions))
        if len(self.hidden_RD) < self.buffers.num_rows:
            grown_RD = self._allocate_hidden(self.buffers.num_rows)
            grown_RD[: len(self.hidden_RD)] = self.hidden_RD
            self.hidden_RD = grown_RD

    def _read(self, news: Sequence[NewPositions]) -> Tensor:
        """Hidden states (M, D); `news` are sorted by the numbers of their rows."""
        num_leading = count_leading(news)
        device, stack, buffers = self.hidden_RD.device, self.stack, self.buffers
        embeds_MD = torch.cat([embeds_TD for _, embeds_TD in news])
        starts = [row.length for row, _ in news[:num_leading]]
        starts_R = torch.tensor(starts, dtype=torch.long, device=device)
        num_kept = round_up(max(starts, default=0) + 1)
        if num_leading == len(news):
            return read_one_each(stack, embeds_MD, starts_R, num_kept=num_kept, buffers=buffers)
        leading = LeadingRows(starts_R, num_kept=num_kept, dtype=embeds_MD.dtype)
        readings = [
            Reading(row.number or 0, row.length, len(embeds_TD))
            for row, embeds_TD in news[num_leading:]
        ]
        positions_M = torch.cat(
            [torch.arange(row.length, row.length + len(embeds)) for row, embeds in news]
        )
        rotation = build_rotation(stack, positions_M.to(device))
        places = RaggedPlaces(leading, readings, rotation)
        return read_positions(stack, embeds_MD, places=places, buffers=buffers)

    def _numbers(self, rows: Sequence[Row]) -> Tensor:
        return torch.tensor([row.number for row in rows], device=self.hidden_RD.device)

    def _allocate_hidden(self, num_rows: int) -> Tensor:
        like = self.stack.norm.weight
        with torch.inference_mode(False):
            return like.new_zeros(num_rows, self.stack.config.hidden_size)


def round_up(num_positions: int) -> int:
    """The next whole number of blocks."""
    return -(-num_positions // POSITIONS_PER_BLOCK) * POSITIONS_PER_BLOCK


def count_leading(news: Sequence[NewPositions]) -> int:
    """How many of rows 0, 1, ... read one position each, before the first that does not."""
    for number, (row, embeds_TD) in enumerate(news):
        if row.number != number or len(embeds_TD) != 1:
            return number
    return len(news)
