"""What is known of a suite at some moment, and what is still missing of its results."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from eval.report import BenchmarkReport


@dataclass(frozen=True)
class SuiteState:
    """The reports of a suite's entries as far as they have run."""

    name: str
    settings: Mapping[str, Any]
    entries: tuple[str, ...]  # all, in order
    reports: Mapping[str, BenchmarkReport]  # of those that are finished, in the same order
    missing: Mapping[str, str] = field(default_factory=dict)  # left out, with the reason
    failed: Mapping[str, str] = field(default_factory=dict)  # with the error

    def add(self, name: str, report: BenchmarkReport) -> "SuiteState":
        """What is known once another entry is finished."""
        known = {**self.reports, name: report}
        ordered = {each: known[each] for each in self.entries if each in known}
        return replace(self, reports=ordered)

    def fail(self, name: str, error: str) -> "SuiteState":
        """What is known once another entry could not be finished."""
        return replace(self, failed={**self.failed, name: error})

    def is_complete(self, report: BenchmarkReport) -> bool:
        """Whether a report covers its whole benchmark; a run with a limit never counts."""
        return (
            self.settings["limit"] is None
            and not report.counts.num_missing
            and report.settings.get("is_complete", True)
        )

    def check_failures(self) -> None:
        """Raise RuntimeError if an entry failed."""
        if self.failed:
            raise RuntimeError(
                f"{len(self.failed)} of {len(self.entries)} entries failed "
                f"({', '.join(self.failed)}); start again with the same command to go on with them"
            )

    def problems(self) -> Iterator[str]:
        """Why the results are not complete, a sentence for each entry; nothing if they are."""
        for name in self.entries:
            if name in self.missing:
                yield f"{name} was left out: {self.missing[name]}"
            elif name in self.failed:
                yield f"{name} failed: {self.failed[name]}"
            elif name not in self.reports:
                yield f"{name} is not finished"
            elif (limit := self.settings["limit"]) is not None:
                yield f"{name} ran with a limit of {limit}, its scores are no results"
            elif not self.is_complete(self.reports[name]):
                yield f"{name} is a partial run, its scores are no results"
