"""Run settings: typos are errors, overrides reach nested keys, what is saved loads again."""

from pathlib import Path

import pytest

from train.config import RunConfig, load_config, save_config
from train.nano import DEFAULT_CONFIG, NanoConfig


class Optim(RunConfig):
    lr: float
    steps: int | None = None


class Run(RunConfig):
    name: str = "run"
    optim: Optim


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text("optim: {lr: 0.1}\n")
    return file


def test_overrides_reach_nested_keys(path: Path) -> None:
    config = load_config(Run, path, ["optim.lr=1.0e-3", "name=other", "optim.steps=5"])
    assert config == Run(name="other", optim=Optim(lr=1e-3, steps=5))


def test_what_is_saved_loads_again(path: Path, tmp_path: Path) -> None:
    config = load_config(NanoConfig, DEFAULT_CONFIG)
    save_config(config, tmp_path / "copy.yaml")
    assert load_config(NanoConfig, tmp_path / "copy.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optim.step=1",
            r"run.yaml does not fit Run: optim: unknown key 'step' \(did you mean 'steps'\?\); "
            "expected one of lr, steps$",
        ),
        (
            "namer=x",
            r"Run: unknown key 'namer' \(did you mean 'name'\?\); expected one of name, optim",
        ),
        ("xyz=1", r"unknown key 'xyz'; expected one of name, optim$"),
        ("optim={1: 2, steps: 3}", r"optim: unknown key 1; expected one of lr, steps"),
        ("optim={}", r"optim\.lr: Field required$"),
        ("optim.lr=fast", r"optim\.lr: Input should be a valid number, .*, got 'fast'$"),
        ("optim.lr", "must look like key=value, got 'optim.lr'"),
        ("optim.lr.x=1", "lr is a value, not a section"),
        ("optim.lr=[1", r"optim\.lr=\[1 is no YAML: while parsing a flow sequence"),
    ],
)
def test_a_wrong_override_is_named(path: Path, override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_config(Run, path, [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [("name: [", "run.yaml is no YAML: while parsing"), ("- a", "must hold key: value pairs, got")],
)
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_config(Run, tmp_path / "run.yaml", ["name=other"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config at .*none\.yaml"):
        load_config(Run, tmp_path / "none.yaml")
