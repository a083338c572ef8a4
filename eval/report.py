"""What every benchmark reports: metrics, groups, a verdict for each item, and what was odd.

A scorer returns a `BenchmarkReport`; commands print it and store it as JSON. A metric of None is
undefined or was not scored, and a note says why: it is never silently zero.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from mllm.console import announce, out
from unitok.files import write_json


@dataclass(frozen=True)
class ItemResult:
    """The verdict on one question or picture."""

    item_id: str
    score: float | None  # usually 0 to 1, as the benchmark counts it; None: not scored
    group: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)  # answer, expected, reason, ...


@dataclass(frozen=True)
class GroupScore:
    """One row of a table by category."""

    group: str
    num_items: int
    score: float | None


@dataclass(frozen=True)
class ItemCounts:
    """How the answers fit the questions."""

    num_items: int  # that the metrics are about
    num_missing: int = 0  # questions without an answer
    num_duplicate: int = 0  # answers to a question that had one
    num_extra: int = 0  # answers to no question
    num_unparsable: int = 0  # answers from which nothing could be read


@dataclass(frozen=True)
class BenchmarkReport:
    """The outcome of one benchmark."""

    benchmark: str  # its name on the command line
    metrics: Mapping[str, float | None]  # in the benchmark's own unit, the headline first
    counts: ItemCounts
    groups: tuple[GroupScore, ...] = ()
    items: tuple[ItemResult, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)  # options that change the score
    notes: tuple[str, ...] = ()  # one sentence each

    @property
    def headline(self) -> tuple[str, float | None]:
        """Name and value of the number that papers quote."""
        return next(iter(self.metrics.items()))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_report(path: Path) -> BenchmarkReport:
    """A report that `write_report` stored; ValueError that names the file for anything else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return BenchmarkReport(
            **{
                **record,
                "counts": ItemCounts(**record["counts"]),
                "groups": tuple(GroupScore(**group) for group in record["groups"]),
                "items": tuple(ItemResult(**item) for item in record["items"]),
                "notes": tuple(record["notes"]),
            }
        )
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"{path} is no whole report of this version; delete it, and it is made again"
        ) from None


def write_report(report: BenchmarkReport, path: Path) -> None:
    """Store a report as JSON in one step."""
    write_json(report.to_dict(), path)


def print_report(report: BenchmarkReport) -> None:
    """Metrics and groups as tables on stdout; notes beside them."""
    metrics = Table(title=f"{report.benchmark}, {report.counts.num_items} items")
    metrics.add_column("metric")
    metrics.add_column("value", justify="right")
    for name, value in report.metrics.items():
        metrics.add_row(name, shown(value))
    out.print(metrics)
    if report.groups:
        out.print(group_table(report.groups))
    for name, value in count_problems(report.counts).items():
        announce(f"{name}: {value}")
    for note in report.notes:
        announce(note)


def group_table(groups: Sequence[GroupScore]) -> Table:
    """Items and score of each group."""
    table = Table()
    for heading in ("group", "items", "score"):
        table.add_column(heading, justify="left" if heading == "group" else "right")
    for group in groups:
        table.add_row(group.group, str(group.num_items), shown(group.score))
    return table


def count_problems(counts: ItemCounts) -> dict[str, int]:
    """The counts that are not as they should be, in words."""
    words = {
        "questions without an answer": counts.num_missing,
        "answers to a question that had one": counts.num_duplicate,
        "answers to no question": counts.num_extra,
        "answers that could not be read": counts.num_unparsable,
    }
    return {name: value for name, value in words.items() if value}


def shown(value: float | None) -> str:
    """A metric as people read it: four decimals where a benchmark counts from 0 to 1."""
    return "not scored" if value is None else f"{value:.{2 if abs(value) >= 10 else 4}f}"
