"""Bootstrap intervals: closed forms on simple cases, seeds, and which headlines have one."""

import math

import numpy as np
import pytest

from eval.bootstrap import Interval, bootstrap_interval
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult
from eval.score_intervals import headline_interval


def units(scores: list[float] | np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(scores, dtype=float), np.ones(len(scores))], axis=1)


def coin(num_right: int, number: int) -> np.ndarray:
    return units(np.arange(number) < num_right)


def test_the_interval_of_a_share_is_the_normal_one_for_many_items():
    interval = bootstrap_interval([coin(600, 2000)])
    half = 1.96 * math.sqrt(0.3 * 0.7 / 2000)  # 0.0201
    # Measured: 0.0005 off; 2000 resamples know an end to about 0.0006.
    assert interval.low == pytest.approx(0.3 - half, abs=0.002)
    assert interval.high == pytest.approx(0.3 + half, abs=0.002)


def test_strata_weigh_alike_and_are_drawn_apart():
    interval = bootstrap_interval([coin(200, 400), coin(1440, 1600)])
    half = 1.96 * math.sqrt(0.5 * 0.5 / 400 + 0.9 * 0.1 / 1600) / 2  # 0.0256
    assert interval.low == pytest.approx(0.7 - half, abs=0.0025)
    assert interval.high == pytest.approx(0.7 + half, abs=0.0025)


def test_scores_of_one_unit_are_drawn_together():
    alone = bootstrap_interval([coin(200, 400)])
    in_fours = bootstrap_interval([np.array([[4.0, 4.0], [0.0, 4.0]] * 50)])
    # Four alike scores are worth one: the interval is twice as wide. Measured: 2.04.
    assert in_fours.high - in_fours.low == pytest.approx(2 * (alone.high - alone.low), rel=0.1)


def test_units_of_different_size_count_by_their_scores():
    interval = bootstrap_interval([np.array([[3.0, 3.0], [0.0, 1.0]])])
    assert interval == Interval(0.0, 1.0)
    assert bootstrap_interval([np.array([[3.0, 4.0]])]) == Interval(0.75, 0.75)


def test_a_seed_gives_the_same_interval_and_another_one_another():
    sample = [coin(30, 100)]
    assert bootstrap_interval(sample, seed=1) == bootstrap_interval(sample, seed=1)
    assert bootstrap_interval(sample, seed=1) != bootstrap_interval(sample, seed=3)


@pytest.mark.parametrize("bad", [np.zeros((0, 2)), np.zeros((2, 2)), np.zeros(3)])
def test_what_is_no_sample_is_refused(bad):
    with pytest.raises(ValueError, match="stratum 0 must have rows"):
        bootstrap_interval([bad])
    with pytest.raises(ValueError, match="at least one stratum"):
        bootstrap_interval([])


# -- headlines -------------------------------------------------------------------------------------


def report(benchmark: str, value: float | None, items: list[ItemResult], **more) -> BenchmarkReport:
    return BenchmarkReport(
        benchmark, {"headline": value}, ItemCounts(len(items)), items=tuple(items), **more
    )


def verdicts(num_right: int, number: int, **more) -> list[ItemResult]:
    return [ItemResult(str(index), float(index < num_right), **more) for index in range(number)]


def test_a_percentage_has_its_interval_in_percent():
    interval = headline_interval(report("gqa", 33.33, verdicts(100, 300)))  # rounded, as officially
    assert isinstance(interval, Interval)
    expected = bootstrap_interval([coin(100, 300)])
    assert interval == Interval(100 * expected.low, 100 * expected.high)


def test_a_percentage_of_one_decimal_has_its_interval():
    interval = headline_interval(report("mmvet", 37.2, verdicts(81, 218)))  # 37.156
    expected = bootstrap_interval([coin(81, 218)])
    assert interval == Interval(100 * expected.low, 100 * expected.high)


def test_geneval_draws_prompts_within_tasks():
    items = [
        ItemResult(f"{prompt:05d}/samples/{number:04d}.png", float(prompt % 2), group=task)
        for prompt, task in enumerate(["counting"] * 40 + ["colors"] * 10)
        for number in range(4)
    ]
    interval = headline_interval(
        report("geneval-drawn", 0.5, items, groups=(GroupScore("counting", 160, 0.5),))
    )
    by_task = [np.array([[0.0, 4.0], [4.0, 4.0]] * (count // 2)) for count in (40, 10)]
    assert interval == bootstrap_interval(by_task)


def test_genai_bench_draws_the_prompts_of_its_headline():
    items = [
        *verdicts(5, 20, details={"tags": ["advanced"]}),
        *verdicts(9, 9, details={"tags": ["basic"]}),
    ]
    assert headline_interval(report("genai_bench", 0.25, items)) == bootstrap_interval(
        [coin(5, 20)]
    )


@pytest.mark.parametrize(
    ("benchmark", "value", "reason"),
    [
        ("vqav2", None, "not scored"),
        ("mme", 1400.0, "headline is no mean over items: a sum over subtasks"),
        ("pope", 0.5, "headline is no mean over items: a mean of F1 scores"),
        ("mmbench", 50.0, "rotations"),
        ("mjhq30k", 7.0, "a distance between two sets"),
        ("somebodys", 0.7, "headline is not the mean over the items"),
    ],
)
def test_what_is_no_mean_has_a_reason_instead(benchmark, value, reason):
    assert reason in str(headline_interval(report(benchmark, value, verdicts(5, 10))))


def test_a_report_without_verdicts_or_with_missing_items_has_no_interval():
    assert headline_interval(report("gqa", 50.0, [])) == "no item has a score of its own"
    partial = BenchmarkReport("gqa", {"accuracy": 50.0}, ItemCounts(10, num_missing=1))
    assert "partial" in str(headline_interval(partial))
