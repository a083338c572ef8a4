"""The scores of finished ablation runs: every seed, mean and spread, as JSON, tables and plots.

A spread is the standard deviation over seeds, with n - 1 as its divisor.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.ablation_config import AblationConfig
from unitok.files import read_json

NOTHING = "-"  # the variant never learned it


@dataclass(frozen=True)
class Metric:
    """A field of `AblationScores`, as readers see it."""

    name: str
    heading: str
    decimals: int = 1
    chance: float | None = None  # what guessing gives
    limits: tuple[float, float] = (0, 100)  # of possible values


METRICS = (
    Metric("psnr", "PSNR, dB", decimals=2, limits=(0, math.inf)),
    Metric("usage", "entries used, %"),
    Metric("perplexity", "perplexity, % of entries"),
    Metric("captions", "own caption among 10, %", chance=10),
    Metric("zero_shot", "zero-shot, 80 names, %", chance=1.25),
    Metric("probe", "linear probe, 80 classes, %", chance=1.25),
)
Row = Mapping[str, Sequence[float]]  # metric -> a value of each seed, none if not learned


@dataclass(frozen=True)
class AblationResults:
    """All runs of some variants, with what is needed to repeat them."""

    ablation: AblationConfig
    base: Mapping[str, Any]  # the resolved settings that variants change
    runs: Sequence[Mapping[str, Any]]  # the content of each scores.json

    @classmethod
    def from_json(cls, path: Path) -> "AblationResults":
        """What `to_json` wrote."""
        content = read_json(path)
        ablation = AblationConfig.model_validate(content["ablation"])
        return cls(ablation, content["base"], content["runs"])

    def to_json(self) -> dict[str, Any]:
        return {
            "ablation": self.ablation.model_dump(mode="json"),
            "base": dict(self.base),
            "runs": list(self.runs),
        }

    def rows(self, study: str) -> dict[str, Row]:
        """The values of each variant of a study, by its label."""
        return {
            self.ablation.variants[name].label: {
                metric.name: self._values(name, metric.name) for metric in METRICS
            }
            for name in self.ablation.studies[study].variants
        }

    def _values(self, variant: str, metric: str) -> list[float]:
        values = [run["scores"][metric] for run in self.runs if run["variant"] == variant]
        return [value for value in values if value is not None]


def summary(values: Sequence[float], decimals: int) -> str:
    """Mean and spread as text."""
    if not values:
        return NOTHING
    mean = f"{statistics.fmean(values):.{decimals}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{decimals}f}"


def markdown_table(rows: Mapping[str, Row]) -> str:
    """A row for each variant, a column for each metric."""
    return "".join(f"| {' | '.join(cells)} |\n" for cells in _table_cells(rows))


def _table_cells(rows: Mapping[str, Row]) -> Iterator[list[str]]:
    yield ["variant", *(metric.heading for metric in METRICS)]
    yield ["---", *["---:"] * len(METRICS)]
    for label, row in rows.items():
        yield [label, *(summary(row[metric.name], metric.decimals) for metric in METRICS)]
