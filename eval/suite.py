"""A suite: benchmarks that run one after the other into one results folder.

    RESULTS/settings.json    what decides the scores; a folder of other settings is refused
    RESULTS/<entry>/         what the benchmark's own command writes, such as report.json
    RESULTS/results.json     all scores; this, results.md and results.png grow with each entry

Started again, a suite passes over finished entries and goes on with the others. An entry that
fails is named with its error, and the others run.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator

from eval.asking import versions
from eval.report import read_report
from eval.result_folder import begin_folder
from eval.suite_entries import REPORT_FILE, Entry, RunSetup
from eval.suite_state import SuiteState
from mllm.console import USER_ERRORS, announce
from mllm.devices import choose_device
from mllm.pipeline import Pipeline
from mllm.share import Share
from unitok.run_config import RunConfig, load_config

ENTRY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MISSING = (OSError, RuntimeError)  # files and packages; a ValueError is a wrong setting


class Suite(RunConfig):
    """A suite file."""

    entries: dict[str, Annotated[Entry, Field(discriminator="kind")]]
    data: Path | None = None  # of the understanding benchmarks

    @field_validator("entries")
    @classmethod
    def _check_names(cls, entries: dict[str, Any]) -> dict[str, Any]:
        if not entries:
            raise ValueError("a suite needs at least one entry")
        for name in entries:
            if not ENTRY_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name for a folder; use letters, digits, _ and -")
        return entries


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite file; ValueError in one sentence that names what does not fit."""
    return load_config(Suite, path, overrides)


@dataclass(frozen=True)
class Problem:
    """Why an entry cannot run."""

    entry: str
    reason: str  # one sentence with its remedy
    is_missing: bool  # data or weights, which may be left out; a damaged file may not


Save = Callable[[SuiteState], None]


@dataclass(frozen=True)
class SuiteRun:
    """A suite, where its results go, and who is measured."""

    name: str
    suite: Suite
    folder: Path
    setup: RunSetup

    def find_problems(self) -> list[Problem]:
        """Check all entries that are not finished."""
        found = []
        for name, entry in self.suite.entries.items():
            if entry.is_finished(self.folder / name):
                continue
            announce(f"checking {name}")
            try:
                entry.check(self.setup)
            except (ValueError, *MISSING) as error:
                is_missing = isinstance(error, MISSING)
                found.append(Problem(name, _sentence(error), is_missing))
        return found

    def run(self, *, skip_missing: bool, save: Save) -> SuiteState:
        """Run what is not finished; `save` is called with what is known after each entry."""
        missing = _allowed(self.find_problems(), skip_missing=skip_missing)
        settings = self._settings()
        begin_folder(self.folder, settings)
        state = SuiteState(self.name, settings, tuple(self.suite.entries), {}, missing)
        finished = [
            name
            for name, entry in self.suite.entries.items()
            if entry.is_finished(self.folder / name)
        ]
        for name in finished:
            state = self._with_report(state, name)
        save(state)
        for number, name in enumerate(self.suite.entries, start=1):
            place = f"{number} of {len(self.suite.entries)}, {name}"
            if name in finished or name in missing:
                announce(f"{place}: {'left out' if name in missing else 'finished'}")
                continue
            announce(f"{place}: running")
            state = self._run_entry(state, name)
            save(state)
        return state

    def _run_entry(self, state: SuiteState, name: str) -> SuiteState:
        """What is known once an entry has run, as far as it came."""
        try:
            self.suite.entries[name].run(self.folder / name, self.setup)
        except USER_ERRORS as error:
            state = state.fail(name, _sentence(error))
            announce(f"{name} failed: {state.failed[name]}")
        return self._with_report(state, name)

    def _with_report(self, state: SuiteState, name: str) -> SuiteState:
        """What is known with the report of an entry, if it has one."""
        path = self.folder / name / REPORT_FILE
        return state.add(name, read_report(path)) if path.is_file() else state

    def _settings(self) -> dict[str, Any]:
        """What decides the scores; the number of processes does not, and data may move."""
        announce(f"loading {self.setup.model}")
        device = choose_device(self.setup.device)
        pipeline = Pipeline.from_pretrained(self.setup.model, device=device, dtype=self.setup.dtype)
        entries = {
            f"entry {name}": entry.model_dump(mode="json")
            for name, entry in self.suite.entries.items()
        }
        return {
            "suite": self.name,
            "model": Path(self.setup.model).name,
            **pipeline.fingerprints(),
            "device": device.type,
            "dtype": str(pipeline.model.dtype).removeprefix("torch."),
            "limit": self.setup.limit,
            **entries,
            "versions": {**versions(), "numpy": version("numpy")},
        }


def check_single_process() -> None:
    """A suite shares its work out by itself."""
    if (count := Share.from_environment().count) > 1:
        raise ValueError(
            f"this is one of {count} processes already; start one, with --num-processes {count}"
        )


def _sentence(error: Exception) -> str:
    """An error's text in one line."""
    return " ".join(str(error).split())


def _allowed(problems: Sequence[Problem], *, skip_missing: bool) -> dict[str, str]:
    """The entries to leave out, with the reasons; raises for what may not be left out."""
    for problem in problems:
        announce(f"{problem.entry}: {problem.reason}")
    if wrong := [problem.entry for problem in problems if not problem.is_missing]:
        raise ValueError(f"correct what is wrong with {', '.join(wrong)}; nothing was run")
    if problems and not skip_missing:
        names = ", ".join(problem.entry for problem in problems)
        raise FileNotFoundError(
            f"{names} cannot run yet, nothing was run; get what is missing, or leave them out "
            "with --skip-missing"
        )
    return {problem.entry: problem.reason for problem in problems}
