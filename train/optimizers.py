"""Optimizers: the nano recipe's, and AdamW as the tokenizer training has it."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from accelerate import PartialState
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.optim import ZeroRedundancyOptimizer

from train.config import RunConfig
from train.muon import Float32Muon

OptimizerName = Literal["adamw", "muon"]
OUTPUT_LAYERS = ("lm_head", "to_logits")  # as with embeddings, their rows are classes, not features


class OptimConfig(RunConfig):
    """AdamW, its rate warmed up and then lowered along a cosine."""

    lr: float = Field(default=5e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    weight_decay: float = 0.02  # but none on biases and other one-dimensional tensors
    warmup_share: float = Field(default=0.01, ge=0, le=1)  # of the steps
    final_lr_share: float = Field(default=0.1, ge=0, le=1)  # of lr, where the cosine ends
    clip_grad: float = Field(default=10.0, gt=0)


class GeneratorOptimConfig(OptimConfig):
    """The tokenizer's own."""

    optimizer: OptimizerName = "adamw"  # muon: our addition, see train/muon.py


def build_optimizers(
    model: nn.Module,
    name: OptimizerName,
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
) -> list[torch.optim.Optimizer]:
    """Optimizers that share a learning rate and together train every parameter.

    `adamw` trains all; `muon` (arXiv 2502.16982) trains the matrices of hidden linear layers, whose
    update it makes orthogonal and scales to the size of an AdamW update, and leaves the rest to
    AdamW. No weight decay on biases, norms and other one-dimensional tensors.
    """
    matrices = hidden_matrices(model) if name == "muon" else []
    groups = decay_groups(_learning(model, without=matrices), weight_decay)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    ]
    if matrices:
        muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append(muon)
    return optimizers


def build_tokenizer_optimizers(
    model: nn.Module, settings: GeneratorOptimConfig, *, zero1: bool
) -> list[torch.optim.Optimizer]:
    """One AdamW, which `zero1` may share out, or Muon on hidden matrices and AdamW on the rest."""
    if settings.optimizer == "adamw":
        return [build_adamw(model, settings, zero1=zero1)]
    matrices = hidden_matrices(model)
    muon = Float32Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay)
    return [build_adamw(model, settings, without=matrices), muon]


def build_adamw(
    model: nn.Module,
    settings: OptimConfig,
    *,
    zero1: bool = False,
    without: Sequence[Tensor] = (),
) -> torch.optim.Optimizer:
    """AdamW in one pass over the parameters that learn, but those it goes `without`.

    With `zero1` each of several processes keeps its share of the moments (arXiv 1910.02054,
    stage 1).
    """
    groups = decay_groups(_learning(model, without=without), settings.weight_decay)
    options: dict[str, Any] = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    if zero1 and PartialState().num_processes > 1:
        return ZeroRedundancyOptimizer(groups, torch.optim.AdamW, fused=True, **options)
    return torch.optim.AdamW(groups, fused=True, **options)


def _learning(model: nn.Module, *, without: Sequence[Tensor]) -> list[Tensor]:
    left_out = {id(param) for param in without}
    return [
        param for param in model.parameters() if param.requires_grad and id(param) not in left_out
    ]


def decay_groups(params: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    """No weight decay on biases, norms and other one-dimensional tensors."""
    return [
        {"params": [p for p in params if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim <= 1], "weight_decay": 0.0},
    ]


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Weights of the linear layers but those that end in logits."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and name.rpartition(".")[2] not in OUTPUT_LAYERS
    ]
