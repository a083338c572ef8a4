"""Published scores, to be shown beside ours: who printed which number where.

`published.yaml` holds them. A score without a source is an error: nobody could look it up.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from pydantic import model_validator

from unitok.run_config import RunConfig, load_config

FILE = Path(__file__).with_name("published.yaml")


class PublishedScore(RunConfig):
    """One printed number, in the unit of our report."""

    model: str
    benchmark: str
    metric: str  # a metric or a group of our report
    value: float
    source: str  # one of the file's sources
    where: str  # table, figure or section
    setting: str = ""  # what else is printed there about this number


class PublishedScores(RunConfig):
    """The whole file."""

    sources: dict[str, str]
    scores: tuple[PublishedScore, ...]

    @model_validator(mode="after")
    def _check(self) -> "PublishedScores":
        seen = set()
        for score in self.scores:
            key = (score.model, score.benchmark, score.metric)
            if key in seen:
                raise ValueError(f"{', '.join(key)} has two scores; keep one")
            seen.add(key)
            if score.source not in self.sources:
                raise ValueError(
                    f"{', '.join(key)} has the source {score.source!r}; expected one of "
                    f"{', '.join(self.sources)}"
                )
            if not score.where:
                raise ValueError(f"{', '.join(key)} does not say where in its source it stands")
        return self

    def of_benchmark(self, benchmark: str) -> tuple[PublishedScore, ...]:
        """The scores on one benchmark, in the order of the file."""
        return tuple(score for score in self.scores if score.benchmark == benchmark)

    def citations(self, scores: Iterable[PublishedScore]) -> list[str]:
        """One line for each place: the source, and the models with their settings."""
        places: dict[str, dict[str, None]] = {}
        for score in scores:
            place = f"{self.sources[score.source]}, {score.where}"
            model = f"{score.model} ({score.setting})" if score.setting else score.model
            places.setdefault(place, {})[model] = None
        return [f"{place}: {', '.join(models)}" for place, models in places.items()]


@cache
def published_scores() -> PublishedScores:
    """The scores that come with this checkout."""
    return load_config(PublishedScores, FILE)
