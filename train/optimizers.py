"""Optimizers of the nano recipe."""

from typing import Literal

import torch
from torch import Tensor, nn

OptimizerName = Literal["adamw", "muon"]
OUTPUT_LAYERS = ("lm_head", "to_logits")  # as with embeddings, their rows are classes, not features


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
    params = [param for param in model.parameters() if param.requires_grad]
    matrices = hidden_matrices(model) if name == "muon" else []
    taken = {id(param) for param in matrices}
    rest = [param for param in params if id(param) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)
    ]
    if matrices:
        muon = torch.optim.Muon(
            matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append(muon)
    return optimizers


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Weights of the linear layers but those that end in logits."""
    return [
        module.weight
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.weight.requires_grad
        and name.rpartition(".")[2] not in OUTPUT_LAYERS
    ]
