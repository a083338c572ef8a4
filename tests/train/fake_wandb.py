"""What a run needs of the package wandb, kept in memory: no network, no account."""

import importlib.machinery
import sys
from types import ModuleType
from typing import Any

import accelerate.tracking
import pytest
from accelerate.utils import LoggerType


class FakeRun:
    """One call of `wandb.init`, and what was logged after it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.is_finished = False

    def log(self, values: dict[str, Any], *, step: int) -> None:
        self.logged.append((step, values))

    def finish(self) -> None:
        self.is_finished = True


def install(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """Put it in place of the package; returns the runs as they begin."""
    runs: list[FakeRun] = []

    def init(**settings: Any) -> FakeRun:
        runs.append(FakeRun(settings))
        return runs[-1]

    package: Any = ModuleType("wandb")
    package.__spec__ = importlib.machinery.ModuleSpec("wandb", loader=None)
    package.init, package.Image = init, lambda picture: picture
    monkeypatch.setitem(sys.modules, "wandb", package)
    available = {*accelerate.tracking.get_available_trackers(), LoggerType.WANDB}
    monkeypatch.setattr(accelerate.tracking, "_available_trackers", list(available))
    return runs
