"""Settings of runs: strict YAML with key=value overrides, and a copy of what was resolved."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import ErrorDetails

from unitok.files import atomic_write


class RunConfig(BaseModel):
    """Base of every run setting: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, values: Any) -> Any:
        """Pydantic would name an unknown key as well, but not those that there are."""
        known = list(cls.model_fields)
        if isinstance(values, dict) and (unknown := [key for key in values if key not in known]):
            named = ", ".join(_with_closest(key, known) for key in unknown)
            raise ValueError(f"unknown key {named}; expected one of {', '.join(known)}")
        return values


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
        problems = "; ".join(_describe(problem, values) for problem in error.errors())
        raise ValueError(f"{path} does not fit {cls.__name__}: {problems}") from error


def save_config(config: RunConfig, path: str | Path) -> None:
    """Write the resolved settings as YAML."""
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _with_closest(key: object, known: Iterable[str]) -> str:
    closest = get_close_matches(str(key), known, n=1)
    return f"{key!r} (did you mean {closest[0]!r}?)" if closest else f"{key!r}"


def _describe(problem: ErrorDetails, values: Mapping[str, Any]) -> str:
    """Which key is wrong, what is expected and what was given."""
    place = _key_path(problem["loc"], values, is_missing=problem["type"] == "missing")
    text = problem["msg"].removeprefix("Value error, ")
    is_plain = isinstance(problem["input"], str | int | float | None)
    given = f", got {problem['input']!r}" if is_plain and problem["type"] != "value_error" else ""
    return f"{place}: {text}{given}" if place else f"{text}{given}"


def _key_path(location: Sequence[int | str], values: Any, *, is_missing: bool) -> str:
    """A key as the user writes it: without the names by which pydantic tells kinds apart."""
    keys = []
    for part in location[:-1] if is_missing else location:
        is_index = isinstance(values, list) and isinstance(part, int) and part < len(values)
        if is_index or (isinstance(values, dict) and part in values):
            keys.append(part)
            values = values[part]
    return ".".join(map(str, [*keys, *location[-1:]] if is_missing else keys))


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
