"""Weights as they come from disk: read, and checked by name and shape before a model takes them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

MAX_NAMED = 5  # problems that an error message lists


def load_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; ValueError for a damaged one."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no weights at {path}; expected them beside config.json: save or download the model "
            "again"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is no safetensors file, or a damaged one ({error}); save or download the "
            "model again"
        ) from error


def check_keys(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: object
) -> None:
    """Raise ValueError that names missing, unknown and misshapen tensors of `source`."""
    problems = [f"missing {key}" for key in expected if key not in weights]
    problems += [f"unknown {key}" for key in weights if key not in expected]
    problems += [
        f"{key} is {tuple(weights[key].shape)}, expected {tuple(expected[key].shape)}"
        for key in expected
        if key in weights and weights[key].shape != expected[key].shape
    ]
    if problems:
        num_more = len(problems) - MAX_NAMED
        more = f" and {num_more} more" if num_more > 0 else ""
        raise ValueError(
            f"the weights in {source} do not fit the config: "
            f"{'; '.join(problems[:MAX_NAMED])}{more}; expected those that belong to it"
        )
