"""Settings of runs: strict YAML with key=value overrides, and a copy of what was resolved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from unitok.files import atomic_write


class RunConfig(BaseModel):
    """Base of every run setting: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Config = TypeVar("Config", bound=RunConfig)


def load_config(cls: type[Config], path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply overrides such as `mllm.lr=1e-4`, and check every key and type.

    Raises FileNotFoundError for the file and ValueError, in one sentence, for anything in it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no config at {path}; expected a YAML file")
    values = _parse_yaml(path.read_text(encoding="utf-8"), source=path) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold key: value pairs, got {values!r}")
    for item in overrides:
        _apply_override(values, item)
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ValueError(f"{path} does not fit {cls.__name__}: {problems}") from error


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write the resolved settings as YAML."""
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _parse_yaml(text: str, *, source: object) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is no YAML: {' '.join(str(error).split())}") from None


def _apply_override(values: dict[str, Any], item: str) -> None:
    key, separator, value = item.partition("=")
    if not separator or not key:
        raise ValueError(f"an override must look like key=value, got {item!r}")
    *parents, leaf = key.split(".")
    node = values
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ValueError(f"cannot set {key}: {parent} is a value, not a section")
    node[leaf] = _parse_yaml(value, source=item)
