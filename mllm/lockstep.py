"""Keeping processes in step whose parameters ZeRO-3 has cut up.

Every call of a layer gathers its parameters from all processes, so all have to make the same calls
in the same order, whatever their batches hold.
"""

import torch
import torch.distributed as dist
from transformers.integrations import is_deepspeed_zero3_enabled


def calls_in_step(own_calls: int, device: torch.device) -> int:
    """How often every process has to call a layer that this one needs `own_calls` times."""
    if not (dist.is_initialized() and is_deepspeed_zero3_enabled()):
        return own_calls
    most = torch.tensor(own_calls, device=device)
    dist.all_reduce(most, dist.ReduceOp.MAX)
    return int(most)
