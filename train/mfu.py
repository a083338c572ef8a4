"""Model FLOPs utilisation: the share of a GPU's peak that the training's useful arithmetic uses.

Counts 6 FLOPs per learned parameter and token (2 forward, 4 backward), 4 per frozen one, and no
attention; what gradient checkpointing computes again is left out. After PaLM (arXiv 2204.02311,
appendix B), which also counts attention.
"""

from torch import nn

# Dense bfloat16 peak in FLOP/s, from the makers' data sheets; the first name that fits counts.
PEAK_FLOPS = {
    "B200": 2.25e15,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A40": 150e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def peak_flops(device_name: str) -> float | None:
    """Peak of the GPU called so; None for one that is not listed."""
    return next((peak for name, peak in PEAK_FLOPS.items() if name in device_name), None)


def flops_per_token(model: nn.Module) -> int:
    """FLOPs of one token in training.

    A frozen weight takes the forward pass and passes the gradient on. Embeddings, which are looked
    up, and the visual head, which few positions reach, count like everything else.
    """
    sizes = [
        (getattr(parameter, "ds_numel", parameter.numel()), parameter.requires_grad)
        for parameter in model.parameters()
    ]
    return sum(size * (6 if learns else 4) for size, learns in sizes)


def utilisation(
    tokens_per_second: float, model: nn.Module, *, device_name: str, devices: int
) -> float | None:
    """MFU of a run over `devices` GPUs of one kind, 0 to 1; None for a GPU that is not listed."""
    peak = peak_flops(device_name)
    if peak is None:
        return None
    return tokens_per_second * flops_per_token(model) / (peak * devices)
