"""Random numbers that belong to a sample: functions of its seed, never of its batch or process.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, "Fast splittable pseudorandom
number generators"): its n-th number is a hash of seed + n * INCREMENT. So a whole batch is drawn
at once, on the device of the seeds, and integer arithmetic gives the same on every device.

Shapes: B samples.
"""

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

INCREMENT = 0x9E3779B97F4A7C15
MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
SHIFTS = (30, 27, 31)
FLOAT_BITS = 24  # of a float32's significand: every number below is exact


def derive(seeds: Tensor, name: str) -> Tensor:
    """Seeds (B,) int64 of an independent stream, one per sample, for the purpose called `name`."""
    digest = hashlib.sha256(name.encode()).digest()
    return _mix(_check(seeds) + int.from_bytes(digest[:8], "big", signed=True))


def uniform(seeds: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """Float32 numbers (B, *shape) in [0, 1), a sample's own for each of the seeds (B,) int64.

    Calls with the same seeds give the same numbers: `derive` seeds for each purpose first.
    """
    count = torch.arange(1, math.prod(shape) + 1, device=seeds.device)
    mixed = _mix(_check(seeds)[:, None] + count * _signed(INCREMENT))
    numbers = _shift_right(mixed, 64 - FLOAT_BITS).float() / 2**FLOAT_BITS
    return numbers.reshape(len(seeds), *shape)


def integers(seeds: Tensor, bounds: Sequence[int]) -> Tensor:
    """Whole numbers (B, len(bounds)), a sample's own, from 0 up to each bound, which is left out.

    From one `uniform` number each, so the bounds should lie far below 2^24.
    """
    shares = uniform(seeds, (len(bounds),))
    return (shares * torch.tensor(bounds, device=seeds.device)).long()


def _check(seeds: Tensor) -> Tensor:
    if seeds.ndim != 1 or seeds.dtype != torch.int64:
        raise ValueError(
            f"seeds must be (B,) int64, one per sample, got {tuple(seeds.shape)} {seeds.dtype}"
        )
    return seeds


def _mix(values: Tensor) -> Tensor:
    """SplitMix64's bijection of 64 bits; int64 products wrap around, as it needs them to."""
    for shift, multiplier in zip(SHIFTS, MULTIPLIERS, strict=False):
        values = (values ^ _shift_right(values, shift)) * _signed(multiplier)
    return values ^ _shift_right(values, SHIFTS[-1])


def _shift_right(values: Tensor, bits: int) -> Tensor:
    """Shift as if the numbers had no sign, which torch's own shift would drag along."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return number - (1 << 64) if number >> 63 else number
