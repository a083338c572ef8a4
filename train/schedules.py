"""Learning rates and other values that change with the step."""

import math


def cosine_rate(
    step: int, num_steps: int, *, peak: float, warmup_steps: int, final_ratio: float
) -> float:
    """Linear warm-up to `peak`, then half a cosine down to `final_ratio` of it."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return peak * (final_ratio + (1 - final_ratio) * cosine)


def ramp(step: int, num_steps: int) -> float:
    """From near 0 at step 0 up to 1 at the last of `num_steps`, and 1 from then on."""
    return min(1.0, (step + 1) / max(1, num_steps))
