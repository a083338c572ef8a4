"""Reports: what people read, and what is stored."""

import pytest

from eval.report import BenchmarkReport, ItemCounts, read_report, shown, write_report


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.85424, "0.8542"),
        (1.0, "1.0000"),
        (7.35381, "7.3538"),
        (85.424, "85.42"),
        (1487.341, "1487.34"),
        (None, "not scored"),
    ],
)
def test_a_metric_is_shown_as_finely_as_papers_quote_it(value: float | None, text: str) -> None:
    assert shown(value) == text


def test_a_stored_metric_is_exact(tmp_path) -> None:
    report = BenchmarkReport("pope", {"f1": 2 / 3, "recall": None}, ItemCounts(3))
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
