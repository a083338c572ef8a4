"""Speed and memory of a tokenizer's two halves, in several variants that do the same.

`plain` is the model as it is written, in float32, with attention by its formula. `float32` is ours
at equal precision: fused attention and, if asked for, compiled with channels last. `bfloat16` is
our fastest. Each variant runs in a process of its own, so that no memory counts for another.

Shapes: B pictures, L visual tokens, K codebooks.
"""

import multiprocessing
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from eval.precision import full_precision
from eval.step_memory import StepMemory
from mllm.image_tokenizer import compile_tokenizer, load_tokenizer
from unitok.config import PRESETS
from unitok.model import UniTok

VARIANTS = ("plain", "float32", "bfloat16")
FRESH = ("base", "large")  # presets that come without weights: seeded ones


@dataclass(frozen=True)
class SpeedRequest:
    """What to measure, the same for every variant."""

    model: str = "nano"  # or a folder, a hub name, or one of FRESH
    image_size: int | None = None  # None: the model's own
    batch_size: int = 8
    seconds: float = 10.0  # of timed runs of each half, at least one
    device: str = "cpu"
    threads: int = 1
    use_compile: bool = False


@dataclass(frozen=True, eq=False)
class Speed:
    """Of one variant."""

    encode_per_second: float  # pictures
    decode_per_second: float
    encode_gib: float  # peak above what is held between runs
    decode_gib: float
    codes: NDArray  # (B, L, K)
    pixels: NDArray  # (B, 3, H, W), decoded from the plain variant's codes


def measure(request: SpeedRequest, variant: str, *, codes: NDArray | None = None) -> Speed:
    """Encode fixed random pictures, then decode `codes`, or those of the pictures."""
    torch.set_num_threads(request.threads)
    device = torch.device(request.device)
    tokenizer = build_variant(request, variant)
    size = request.image_size or tokenizer.config.image_size
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(request.batch_size, 3, size, size, generator=generator) * 2 - 1
    pixels = pixels.to(device)
    with torch.inference_mode(), full_precision(), _attention(variant):
        found, encode_rate, encode_gib = _time(
            lambda: tokenizer.encode(pixels), request, device=device
        )
        given = found if codes is None else torch.from_numpy(codes).to(device)
        decoded, decode_rate, decode_gib = _time(
            lambda: tokenizer.decode(given, tokenizer.grid(pixels)), request, device=device
        )
    return Speed(
        encode_rate,
        decode_rate,
        encode_gib,
        decode_gib,
        found.cpu().numpy(),
        decoded.float().cpu().numpy(),
    )


def build_variant(request: SpeedRequest, variant: str) -> UniTok:
    """The tokenizer in the variant's precision and form."""
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    dtype = torch.bfloat16 if variant == "bfloat16" else torch.float32
    if request.model in FRESH:
        torch.manual_seed(0)
        tokenizer = UniTok(PRESETS[request.model]).eval().to(request.device, dtype)
    else:
        tokenizer = load_tokenizer(request.model, device=request.device, dtype=dtype)
    if variant != "plain" and request.use_compile:
        compile_tokenizer(tokenizer)
    return tokenizer


def measure_apart(request: SpeedRequest, variant: str, *, codes: NDArray | None = None) -> Speed:
    """`measure` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (request, variant), {"codes": codes})


def agreement(first: Speed, second: Speed) -> float:
    """Share of sub-codes that two variants agree on, 0..1."""
    return float(np.mean(first.codes == second.codes))


def _attention(variant: str) -> AbstractContextManager[Any]:
    return sdpa_kernel(SDPBackend.MATH) if variant == "plain" else nullcontext()


def _time(
    run: Callable[[], Tensor], request: SpeedRequest, *, device: torch.device
) -> tuple[Tensor, float, float]:
    """The result, pictures per second after a run that warms up, and the peak memory in GiB.

    The fastest run counts: other programs on the machine only ever slow one down.
    """
    result = run()
    memory = StepMemory(device)
    times: list[float] = []
    while not times or sum(times) < request.seconds:
        started = _now(device)
        result = run()
        times.append(_now(device) - started)
    return result, request.batch_size / min(times), memory.peak_gib()


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
