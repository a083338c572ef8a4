"""What a process has held in memory."""

import resource
import sys


def peak_memory_gib() -> float:
    """The most memory that this process has held at once so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)  # macOS counts bytes, Linux KiB
