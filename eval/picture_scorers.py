"""Models that say how well a picture fits its prompt, and a memory of what they said.

A scorer is any object with a `name` and `score(picture, prompt)`: see `PictureScorer`. On the
command line it is `module:name` of a class or function that is called without arguments, such as
`eval.picture_scorers:ClipFlanT5`, or of one's own file in the current folder.
"""

import importlib
import json
import math
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from eval.file_hashes import hash_lines, sha256_of
from unitok.files import atomic_write, read_json


@runtime_checkable
class PictureScorer(Protocol):
    """Rates pictures; the published numbers are VQAScores in 0..1."""

    name: str  # with the version of its weights; stands beside every score

    def score(self, picture: Path, prompt: str) -> float:
        """How well the picture in a file shows the prompt; the higher the better."""
        ...


class ClipFlanT5:
    """VQAScore by clip-flant5-xxl, which the published numbers are from.

    Asked `Does this figure show "{prompt}"? Please answer yes or no.`, the score is the geometric
    mean of the probabilities of "Yes" and of the end behind it. Transformers has no class for this
    checkpoint, so the package t2v_metrics loads and asks it.
    """

    name = "clip-flant5-xxl"

    def __init__(self) -> None:
        try:
            from t2v_metrics import VQAScore  # type: ignore[import-not-found]
        except ImportError as error:
            raise RuntimeError(
                "clip-flant5-xxl needs the package t2v_metrics; install a release before 3.1, "
                "later ones have no clip-flant5, or give --scores FILE with scores made elsewhere"
            ) from error
        self.model: Any = VQAScore(model=self.name)

    def score(self, picture: Path, prompt: str) -> float:
        """In 0..1, one picture at a time as in the published numbers."""
        return float(self.model(images=[str(picture)], texts=[prompt])[0][0])


def load_scorer(reference: str) -> PictureScorer:
    """The scorer called `module:name`; ValueError if that is none."""
    module_name, _, name = reference.partition(":")
    if not module_name or not name:
        raise ValueError(
            f"a scorer is written module:name, such as eval.picture_scorers:ClipFlanT5, "
            f"got {reference!r}"
        )
    try:
        build = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"no scorer is found at {reference}: {error}") from error
    scorer = build()
    if not isinstance(scorer, PictureScorer):
        raise ValueError(f"{reference} is no scorer: it needs a name and score(picture, prompt)")
    return scorer


class ScoreCache:
    """Scores of one scorer on disk, found again by its name, the picture's bytes and the prompt."""

    def __init__(self, path: Path, scorer: PictureScorer) -> None:
        self.path = path
        self.scorer = scorer
        self.scores: dict[str, float] = read_json(path) if path.is_file() else {}

    def score(self, picture: Path, prompt: str) -> float:
        """The score of a picture; a new one is stored at once."""
        key = hash_lines([self.scorer.name, sha256_of(picture), prompt])
        if key not in self.scores:
            score = float(self.scorer.score(picture, prompt))
            if not math.isfinite(score):
                raise ValueError(f"{self.scorer.name} gives {picture} the score {score}")
            self.scores[key] = score
            with atomic_write(self.path) as temporary:
                temporary.write_text(json.dumps(self.scores, indent=1) + "\n", encoding="utf-8")
        return self.scores[key]
