"""The table of a suite: our scores with their intervals, published ones beside them.

A row is a headline, another metric that somebody has published, or one of a few groups. Published
numbers stand beside a whole run of a benchmark of the same name only, never beside drawn scenes, a
choice of prompts or a run with a limit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eval.bootstrap import LEVEL, Interval
from eval.published import PublishedScore, published_scores
from eval.report import BenchmarkReport, shown
from eval.suite_state import SuiteState

NOTHING = "-"  # no such number is known
MAX_GROUPS = 8  # of a benchmark; longer tables stay in its own report


@dataclass(frozen=True)
class ScoreTable:
    """Cells as text, with what a reader must know above and below."""

    title: str
    warnings: tuple[str, ...]
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """The whole document."""
        lines = [f"# {self.title}", ""]
        lines += [line for warning in self.warnings for line in (f"**{warning}**", "")]
        lines += [_markdown_row(self.heading)]
        lines += [_markdown_row(["---", "---", *["---:"] * (len(self.heading) - 2)])]
        lines += [_markdown_row(row) for row in self.rows]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def build_table(state: SuiteState, intervals: Mapping[str, Interval | str]) -> ScoreTable:
    """The table of what is finished."""
    published = [
        score
        for report in state.reports.values()
        for score in _published(report, state)
        if score.metric in _values(report)
    ]
    models = list(dict.fromkeys(score.model for score in published))
    rows = [
        row
        for name, report in state.reports.items()
        for row in _rows(
            report,
            _published(report, state),
            models=models,
            interval=intervals[name],
            label=_label(name, report, state),
        )
    ]
    return ScoreTable(
        title=f"{state.settings['model']} on suite {state.name}",
        warnings=tuple(f"INCOMPLETE: {problem}" for problem in state.problems()),
        heading=("benchmark", "metric", f"ours ({LEVEL:.0%} interval)", *models),
        rows=tuple(rows),
        notes=tuple(_notes(state, intervals, published=published)),
    )


def _label(name: str, report: BenchmarkReport, state: SuiteState) -> str:
    return name if state.is_complete(report) else f"{name} (PARTIAL)"


def _published(report: BenchmarkReport, state: SuiteState) -> tuple[PublishedScore, ...]:
    """What may stand beside a report: nothing beside one that is no result."""
    if not state.is_complete(report):
        return ()
    return published_scores().of_benchmark(report.benchmark)


def _rows(
    report: BenchmarkReport,
    scores: Sequence[PublishedScore],
    *,
    models: Sequence[str],
    interval: Interval | str,
    label: str,
) -> Iterator[tuple[str, ...]]:
    values = _values(report)
    headline = report.headline[0]
    groups = [group.group for group in report.groups if len(report.groups) <= MAX_GROUPS]
    for metric in dict.fromkeys([headline, *(score.metric for score in scores), *groups]):
        if metric not in values:
            continue
        theirs = _their_cells([score for score in scores if score.metric == metric])
        ours = _our_cell(values[metric], interval if metric == headline else "")
        yield (label, metric, ours, *(theirs.get(model, NOTHING) for model in models))


def _their_cells(scores: Sequence[PublishedScore]) -> dict[str, str]:
    """By model, all with the decimals of the most precise."""
    decimals = max((len(f"{score.value:g}".partition(".")[2]) for score in scores), default=0)
    return {score.model: f"{score.value:.{decimals}f}" for score in scores}


def _our_cell(value: float | None, interval: Interval | str) -> str:
    if value is None or not isinstance(interval, Interval):
        return shown(value)
    return f"{shown(value)} ({shown(interval.low)} to {shown(interval.high)})"


def _values(report: BenchmarkReport) -> dict[str, float | None]:
    """Metrics and groups by name; of one name, the metric."""
    return {**{group.group: group.score for group in report.groups}, **report.metrics}


def _notes(
    state: SuiteState,
    intervals: Mapping[str, Interval | str],
    *,
    published: Sequence[PublishedScore],
) -> Iterator[str]:
    fingerprint = state.settings["model_fingerprint"]
    yield f"model {state.settings['model']} ({fingerprint}), {state.settings['dtype']}"
    for name, report in state.reports.items():
        yield from (f"{name}: {text}" for text in _judges(report.settings))
        if isinstance(reason := intervals[name], str):
            yield f"{name}: no interval, {reason}"
        yield from (f"{name}: {note}" for note in report.notes)
    for line in published_scores().citations(published):
        yield f"published: {line}"


def _judges(settings: Mapping[str, Any]) -> Iterator[str]:
    """Who judged, with the hash of its weights where there are some."""
    for who, weights in (
        ("detector", "detector_fingerprint"),
        ("colors", ""),
        ("grader", ""),
        ("scorer", ""),
        ("extractor", "extractor_sha256"),
    ):
        if settings.get(who):
            detail = f" ({settings[weights]})" if weights in settings else ""
            yield f"{who} {settings[who]}{detail}"


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
