"""The confidence interval of a benchmark's headline, or why it has none.

Questions are drawn anew one by one. GenEval's prompts are drawn anew within their tasks, each with
all of its pictures. Nothing else that may change a score is in the interval: neither the seed of
the pictures nor who judges them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.bootstrap import LEVEL, NUM_RESAMPLES, SEED, Interval, bootstrap_interval
from eval.genai_bench import BENCHMARK as GENAI_BENCH
from eval.genai_bench import HEADLINE as GENAI_HEADLINE
from eval.report import BenchmarkReport, ItemResult

NO_MEANS = {
    "mme": "a sum over subtasks of accuracies by question and by picture",
    "pope": "a mean of F1 scores",
    "mmbench": "a question counts only if all of its rotations are right",
    "mjhq30k": "a distance between two sets of pictures",
}
MAX_ROUNDING = 0.051  # in percent: MM-Vet has one decimal, the other official scripts two
METHOD = {
    "method": "percentile bootstrap over questions, or over prompts within tasks",
    "level": LEVEL,
    "num_resamples": NUM_RESAMPLES,
    "seed": SEED,
}


def headline_interval(report: BenchmarkReport) -> Interval | str:
    """The interval in the unit of the headline, or the reason why there is none."""
    name, value = report.headline
    if value is None:
        return "not scored"
    if report.counts.num_missing:
        return "a partial run: what is missing cannot be drawn anew"
    if reason := NO_MEANS.get(report.benchmark):
        return f"{name} is no mean over items: {reason}"
    strata = _strata(report)
    if not strata:
        return "no item has a score of its own"
    mean = float(np.mean([units[:, 0].sum() / units[:, 1].sum() for units in strata]))
    for scale in (1, 100):
        if abs(scale * mean - value) <= MAX_ROUNDING * scale / 100:
            found = bootstrap_interval(strata)
            return Interval(scale * found.low, scale * found.high)
    return f"{name} is not the mean over the items of the report"


def _strata(report: BenchmarkReport) -> list[NDArray[np.float64]]:
    """Units with the sum and the number of their scores, items without a score left out."""
    scored = [item for item in report.items if item.score is not None]
    if report.benchmark == GENAI_BENCH:
        scored = [item for item in scored if GENAI_HEADLINE in item.details["tags"]]
    if report.benchmark.split("-")[0] != "geneval":
        return [_units([[item] for item in scored])] if scored else []
    return [
        _units(_grouped(items, by=_prompt_folder).values())
        for items in _grouped(scored, by=lambda item: item.group).values()
    ]


def _prompt_folder(item: ItemResult) -> str:
    """Pictures of one prompt lie in one folder."""
    return item.item_id.split("/")[0]


def _grouped(
    items: Sequence[ItemResult], *, by: Callable[[ItemResult], str]
) -> Mapping[str, list[ItemResult]]:
    groups: dict[str, list[ItemResult]] = {}
    for item in items:
        groups.setdefault(by(item), []).append(item)
    return groups


def _units(groups: Iterable[Sequence[ItemResult]]) -> NDArray[np.float64]:
    rows = [(sum(item.score or 0 for item in items), len(items)) for items in groups]
    return np.array(rows, dtype=np.float64)
