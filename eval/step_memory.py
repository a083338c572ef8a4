"""Peak memory of a step above what was there before it."""

import ctypes
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"  # proc(5): the peak resident size becomes the present one
KIB_PER_GIB = 2**20


class StepMemory:
    """Created before a step, asked after it. On CPU it needs Linux and counts resident memory."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device) / 2**30
            return
        if not CLEAR_REFS.exists():
            raise RuntimeError("peak memory on CPU needs Linux's /proc; measure on CUDA or Linux")
        _return_freed_memory()
        CLEAR_REFS.write_text(RESET_PEAK)
        self.before = _status_gib("VmRSS")

    def peak_gib(self) -> float:
        """GiB above the start, at the highest."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30 - self.before
        return _status_gib("VmHWM") - self.before


def _return_freed_memory() -> None:
    """Where the C library can: what earlier steps have freed would hide the peak of this one."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _status_gib(name: str) -> float:
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / KIB_PER_GIB
    raise RuntimeError(f"{STATUS} has no {name}; measure on another Linux or on CUDA")
