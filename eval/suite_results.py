"""What a suite found, in three files that say the same: results.json, results.md, results.png.

A score of an incomplete run is marked in each of them, and so is what was left out.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from eval.bootstrap import Interval
from eval.report import BenchmarkReport
from eval.score_intervals import METHOD, headline_interval
from eval.score_table import build_table
from eval.suite_entries import REPORT_FILE
from eval.suite_state import SuiteState
from eval.table_picture import draw_table
from unitok.files import atomic_write, write_json

RESULTS_FILE = "results.json"
TABLE_FILE = "results.md"
PICTURE_FILE = "results.png"


def write_results(state: SuiteState, folder: Path) -> None:
    """Write all three files, each in one step."""
    intervals = {name: headline_interval(report) for name, report in state.reports.items()}
    write_json(build_results(state, intervals), folder / RESULTS_FILE)
    table = build_table(state, intervals)
    with atomic_write(folder / TABLE_FILE) as temporary:
        temporary.write_text(table.markdown(), encoding="utf-8")
    with atomic_write(folder / PICTURE_FILE) as temporary:
        draw_table(table).save(temporary)


def build_results(state: SuiteState, intervals: dict[str, Interval | str]) -> dict[str, Any]:
    """For JSON. Nothing in it depends on when or by how many processes it was made."""
    problems = list(state.problems())
    return {
        "suite": state.name,
        "is_complete": not problems,
        "problems": problems,
        "settings": state.settings,
        "intervals": METHOD,
        "missing": state.missing,
        "failed": state.failed,
        "entries": {
            name: {
                "is_complete": state.is_complete(report),
                **describe_entry(report, intervals[name]),
            }
            for name, report in state.reports.items()
        },
        "details": f"answers, reasons and what a detector saw are in ENTRY/{REPORT_FILE}",
    }


def describe_entry(report: BenchmarkReport, interval: Interval | str) -> dict[str, Any]:
    """A report with its interval; of every item only the verdict."""
    name, value = report.headline
    return {
        "benchmark": report.benchmark,
        "headline": {
            "metric": name,
            "value": value,
            "interval": asdict(interval) if isinstance(interval, Interval) else None,
            "why_no_interval": interval if isinstance(interval, str) else None,
        },
        "metrics": report.metrics,
        "groups": [asdict(group) for group in report.groups],
        "counts": asdict(report.counts),
        "settings": report.settings,
        "notes": report.notes,
        "verdicts": [
            {"item": item.item_id, "group": item.group, "score": item.score}
            for item in report.items
        ],
    }
