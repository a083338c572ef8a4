"""The optimizer of a training stage: one for all parameters, in groups that DeepSpeed can cut up.

Muon is DeepSpeed's: ZeRO hands an optimizer slices of matrices, so what makes an update orthogonal
has to run inside ZeRO. Its steps are scaled to those of `torch.optim.Muon` with
`match_rms_adamw`, which the nano recipe takes.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import nn

from train.optimizers import hidden_matrices
from train.parts import part_of
from train.stage_config import StageOptimConfig

MUON_RMS = 0.2  # of an update's elements, as of AdamW's (arXiv 2502.16982, section 2.2)
MUON_MOMENTUM = 0.95  # torch's default


class GroupKey(NamedTuple):
    """What the parameters of a group share."""

    part: str
    is_matrix: bool  # others have no weight decay
    muon_inputs: int | None  # columns of a matrix for Muon; None: AdamW


def build_stage_optimizer(model: nn.Module, config: StageOptimConfig) -> torch.optim.Optimizer:
    """AdamW, or Muon on the hidden matrices with AdamW on the rest."""
    groups = parameter_groups(model, config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    # Imported here: a stage with AdamW and without ZeRO does not wait for DeepSpeed.
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    for group in groups:
        for parameter in group["params"]:
            parameter.use_muon = group["use_muon"]  # where ZeRO looks
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(groups)
    return optimizer


def parameter_groups(model: nn.Module, config: StageOptimConfig) -> list[dict[str, Any]]:
    """What learns, by part of the model, weight decay and, for Muon, number of columns."""
    for_muon = hidden_matrices(model) if config.optimizer == "muon" else []
    hidden = {id(parameter) for parameter in for_muon}
    groups: dict[GroupKey, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            # ZeRO-3 leaves parameters empty; their own shape is kept in ds_shape.
            shape = getattr(parameter, "ds_shape", parameter.shape)
            inputs = shape[1] if id(parameter) in hidden else None
            key = GroupKey(part_of(name), len(shape) > 1, inputs)
            groups.setdefault(key, []).append(parameter)
    return [{"params": own, **_settings(key, config)} for key, own in groups.items()]


def _settings(key: GroupKey, config: StageOptimConfig) -> dict[str, Any]:
    lr = config.lr * config.lr_scales.get(key.part, 1.0)
    weight_decay = config.weight_decay if key.is_matrix else 0.0
    if config.optimizer == "adamw":
        return {"lr": lr, "weight_decay": weight_decay}
    if key.muon_inputs is None:
        betas = {"betas": config.betas, "eps": config.eps}
        return {"lr": lr, "weight_decay": weight_decay, **betas, "use_muon": False}
    # For r rows and c columns torch multiplies an orthogonal update by 0.2 sqrt(max(r, c)) and
    # DeepSpeed by sqrt(max(1, r / c)): what is missing is 0.2 sqrt(c), whatever r. The decay, which
    # is multiplied by the rate, does without it.
    scale = MUON_RMS * math.sqrt(key.muon_inputs)
    return {
        "lr": lr * scale,
        "weight_decay": weight_decay / scale,
        "momentum": MUON_MOMENTUM,
        # The same iteration on the small Gram matrices, in float16 where the device has it and in
        # float32 where not: "standard" takes bfloat16 on every CPU, which many emulate slowly.
        "ns_method": "gram",
        "use_muon": True,
    }
