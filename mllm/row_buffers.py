"""Keys and values of many rows, kept for every layer of a LLaMA stack and used again and again.

Shapes: R rows, G key heads, T positions, E head width, N layers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaModel


@dataclass(frozen=True)
class LayerBuffer:
    """Of one layer."""

    keys_RGTE: Tensor
    values_RGTE: Tensor


class RowBuffers:
    """Room for so many rows of so many positions; grows when asked for more, never shrinks."""

    def __init__(self, stack: LlamaModel, *, num_rows: int = 0, num_positions: int = 0) -> None:
        self._stack = stack
        self.layers = [self._allocate(num_rows, num_positions) for _ in stack.layers]

    @property
    def num_rows(self) -> int:
        return self.layers[0].keys_RGTE.shape[0]

    @property
    def num_positions(self) -> int:
        return self.layers[0].keys_RGTE.shape[2]

    def reserve(self, num_rows: int, num_positions: int) -> None:
        """Make room, keeping what is there; the number of rows at least doubles."""
        if num_rows > self.num_rows:
            num_rows = max(num_rows, 2 * self.num_rows)
        num_rows = max(num_rows, self.num_rows)
        num_positions = max(num_positions, self.num_positions)
        if (num_rows, num_positions) != (self.num_rows, self.num_positions):
            self.layers = [self._grown(layer, num_rows, num_positions) for layer in self.layers]

    def copy_row(self, source: int, target: int, *, length: int) -> None:
        """Let row `target` begin with the first `length` positions of row `source`."""
        for layer in self.layers:
            for buffer in (layer.keys_RGTE, layer.values_RGTE):
                buffer[target, :, :length] = buffer[source, :, :length]

    def read_row(self, row: int, *, length: int) -> Tensor:
        """A copy of the first positions of a row, (N, 2, G, length, E)."""
        return torch.stack(
            [
                torch.stack([layer.keys_RGTE[row, :, :length], layer.values_RGTE[row, :, :length]])
                for layer in self.layers
            ]
        )

    def write_row(self, row: int, kept_N2GTE: Tensor) -> None:
        """Put what `read_row` gave at the start of a row."""
        length = kept_N2GTE.shape[3]
        for layer, (keys_GTE, values_GTE) in zip(self.layers, kept_N2GTE, strict=True):
            layer.keys_RGTE[row, :, :length] = keys_GTE
            layer.values_RGTE[row, :, :length] = values_GTE

    def _allocate(self, num_rows: int, num_positions: int) -> LayerBuffer:
        # Linear layers may be quantized to another type; norms have that of the computation.
        like = self._stack.norm.weight
        config: Any = self._stack.config
        shape = (num_rows, config.num_key_value_heads, num_positions, config.head_dim)
        with torch.inference_mode(False):  # else only code in that mode could write to it
            return LayerBuffer(*(like.new_zeros(shape) for _ in range(2)))

    def _grown(self, layer: LayerBuffer, num_rows: int, num_positions: int) -> LayerBuffer:
        grown = self._allocate(num_rows, num_positions)
        rows, _, positions, _ = layer.keys_RGTE.shape
        grown.keys_RGTE[:rows, :, :positions] = layer.keys_RGTE
        grown.values_RGTE[:rows, :, :positions] = layer.values_RGTE
        return grown
