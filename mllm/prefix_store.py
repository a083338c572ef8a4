"""Conversations that have been read, so that their next turn reads only what is new.

What the decoder keeps of a position depends on nothing but the positions up to it. So a
conversation that begins as an earlier one did goes on from a copy of that one's keys and values;
pictures count by their codes.

Shapes: L visual tokens, K codebooks, N layers, G key heads, T positions, E head width.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from itertools import takewhile
from typing import TypeAlias

from torch import Tensor

Keys: TypeAlias = Sequence[Hashable]  # what stands at each position: a text id, or K sub-codes


def visual_keys(codes_LK: Tensor) -> list[Hashable]:
    """Keys of the visual tokens of a picture."""
    return [tuple(sub_codes) for sub_codes in codes_LK.tolist()]


def build_keys(ids: Sequence[int], codes: Sequence[Tensor], *, image_token_id: int) -> Keys:
    """Keys of ids in which each picture, with codes (L, K), stands as L placeholders."""
    visual = iter([key for codes_LK in codes for key in visual_keys(codes_LK)])
    return [next(visual) if token_id == image_token_id else token_id for token_id in ids]


class PrefixStore:
    """Keys and values of the latest conversations, up to so many positions in all."""

    def __init__(self, max_positions: int) -> None:
        self.max_positions = max_positions
        self._kept: OrderedDict[tuple[Hashable, ...], Tensor] = OrderedDict()  # oldest use first

    @property
    def num_positions(self) -> int:
        return sum(map(len, self._kept))

    def keep(self, keys: Keys, kept_N2GTE: Tensor) -> None:
        """Remember a conversation, in place of what it began with; the oldest ones may go."""
        whole = tuple(keys)
        for shorter in [each for each in self._kept if each == whole[: len(each)]]:
            del self._kept[shorter]
        self._kept[whole] = kept_N2GTE
        while self.num_positions > self.max_positions:
            self._kept.popitem(last=False)

    def find(self, keys: Keys) -> Tensor | None:
        """Keys and values (N, 2, G, T, E) of the longest beginning that is known.

        At least the last position of `keys` is left to be read: what comes of it is not kept.
        """
        if not self._kept:
            return None
        best = max(self._kept, key=lambda each: count_common(each, keys))
        length = min(count_common(best, keys), len(keys) - 1)
        if length < 1:
            return None
        self._kept.move_to_end(best)
        return self._kept[best][:, :, :, :length]


def count_common(first: Keys, second: Keys) -> int:
    """How many positions two conversations have in common before they first differ."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
