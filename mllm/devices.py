"""Where a model runs and in which precision, and what to say when it does not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# What torch's allocators for main memory and for Apple's GPUs say, without a class of their own.
OUT_OF_MEMORY = ("can't allocate memory", "MPS backend out of memory")


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """The device called `name`; auto: a CUDA GPU, else Apple's, else the processor."""
    if str(name) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be auto, cpu, cuda or mps, got {name!r}") from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(device.type, False):
        raise ValueError(f"this machine has no usable {device.type} device; choose the device cpu")
    return device


def choose_dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision called `name`; None: bfloat16 on CUDA, as released, and float32 elsewhere."""
    if name is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {name!r}")
    return DTYPES[name]


@contextmanager
def explain_out_of_memory(task: str, remedy: str) -> Iterator[None]:
    """Turn the allocator's error into a sentence with the remedy."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RuntimeError(f"out of GPU memory while {task}; {remedy}") from error
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(t in str(error) for t in OUT_OF_MEMORY):
            raise
        raise RuntimeError(f"out of memory while {task}; {remedy}") from error


def load_remedy(folder: Path, dtype: torch.dtype) -> str:
    """What to do when the weights in `folder` do not fit."""
    gigabytes = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e9
    stored = f"its files are {gigabytes:.1f} GB"
    if dtype == torch.float32:
        return f"{stored}; dtype bfloat16 takes half of float32"
    return f"{stored}; use a device with more memory"


def draw_remedy(batch_size: int, dtype: torch.dtype) -> str:
    """What to do when so many pictures at a time do not fit."""
    fewer = f"draw fewer pictures at a time than {batch_size}" if batch_size > 1 else ""
    smaller = "use dtype bfloat16" if dtype == torch.float32 else ""
    return " or ".join(filter(None, [fewer, smaller])) or "use a device with more memory"
