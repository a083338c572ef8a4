"""The parts of the MLLM that training stages freeze, train and give learning rates of their own."""

from collections.abc import Collection

from torch import nn

WRAPPERS = ("module.", "base_model.model.")  # what DDP and peft put before a parameter's name
# Name of a part -> what its parameters' names start with.
PARTS = {
    "projection": ("visual_embedder.projection.",),  # attention over a picture's codes
    "projector": ("visual_embedder.mlp.",),
    "llm": ("decoder.", "lm_head."),
    "visual_head": ("visual_head.",),
}


def part_of(parameter_name: str) -> str:
    """The part that a parameter belongs to."""
    name = parameter_name
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    for part, prefixes in PARTS.items():
        if name.startswith(prefixes):
            return part
    raise ValueError(
        f"parameter {parameter_name} belongs to no part of a UniTokMLLM: {', '.join(PARTS)}"
    )


def check_parts(names: Collection[str]) -> None:
    """Raise ValueError for a name that no part has."""
    if unknown := sorted(set(names) - set(PARTS)):
        raise ValueError(f"unknown parts {unknown}; expected {', '.join(PARTS)}")


def train_only(model: nn.Module, parts: Collection[str]) -> None:
    """Let these parts learn and freeze the others; the codebooks are never trained."""
    check_parts(parts)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(part_of(name) in parts)


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Part -> (parameters that learn, all parameters)."""
    counts = dict.fromkeys(PARTS, (0, 0))
    for name, parameter in model.named_parameters():
        size = getattr(parameter, "ds_numel", parameter.numel())
        learning, total = counts[part_of(name)]
        counts[part_of(name)] = (learning + size * parameter.requires_grad, total + size)
    return counts
