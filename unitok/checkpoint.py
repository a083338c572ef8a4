"""Weights as they come from disk: read, and checked by name and shape before a model takes them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unitok.hub import RELEASED_SUFFIXES, convert_hint

MAX_NAMED = 5  # problems that an error message lists

Layout = dict[str, tuple[int, ...]]  # name -> shape


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


def find_weights(folder: Path) -> list[Path]:
    """The safetensors files of a saved model: one, or its shards."""
    for pattern in ("model.safetensors", "model*.safetensors"):
        if found := sorted(folder.glob(pattern)):
            return found
    is_released = any(path.suffix in RELEASED_SUFFIXES for path in folder.iterdir())
    remedy = convert_hint(folder) if is_released else "save or download the model again"
    raise FileNotFoundError(f"{folder} holds no model*.safetensors; {remedy}")


def load_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a saved model; they are mapped from disk, not read, until someone looks."""
    return {
        key: value for path in find_weights(folder) for key, value in load_weights(path).items()
    }


def check_keys(
    weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: object
) -> None:
    """Raise ValueError that names missing, unknown and misshapen tensors of `source`."""
    check_layout(_shapes(weights), _shapes(expected), source=source)


def _shapes(weights: Mapping[str, Tensor]) -> Layout:
    """Names and shapes of tensors."""
    return {key: tuple(value.shape) for key, value in weights.items()}


def check_layout(found: Layout, expected: Layout, *, source: object) -> None:
    """As `check_keys`, for weights of which only names and shapes were read."""
    problems = [f"missing {key}" for key in expected if key not in found]
    problems += [f"unknown {key}" for key in found if key not in expected]
    problems += [
        f"{key} is {found[key]}, expected {shape}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    ]
    if problems:
        num_more = len(problems) - MAX_NAMED
        more = f" and {num_more} more" if num_more > 0 else ""
        raise ValueError(
            f"the weights in {source} do not fit the config: "
            f"{'; '.join(problems[:MAX_NAMED])}{more}; expected those that belong to it"
        )
