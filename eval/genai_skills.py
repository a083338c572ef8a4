"""GenAI-Bench: its prompts, their skills, and the scores by skill as UniTok and Liquid print them.

Both files are the benchmark's own, with 527 prompts; a prompt is known by its number from 1 on.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.file_hashes import check_sha256
from unitok.files import read_json

PROMPTS_SHA256 = "62de129d00c6a9b3d9e7605f9a82f8827b5dba6c72caa67f5c739a1370736e5b"
SKILLS_SHA256 = "f68a544fb8929d031e15be68df8320455202cac1b08246864abd12add2122b7b"
SOURCE = "from the GenAI-Bench evaluation in the UniTok or the Liquid repository"

# The tables that are printed; the last row of each sums it up.
TABLES: dict[str, tuple[str, ...]] = {
    "basic": (
        "attribute",
        "scene",
        "spatial relation",
        "action relation",
        "part relation",
        "basic",
    ),
    "advanced": (
        "counting",
        "comparison",
        "differentiation",
        "negation",
        "universal",
        "advanced",
    ),
    "overall": ("basic", "advanced", "all"),
}
ALL = "all"  # the union of the tags
TAGS = tuple(dict.fromkeys(tag for table in TABLES.values() for tag in table if tag != ALL))


@dataclass(frozen=True)
class SkillScore:
    """Scores of the prompts of one tag, in float32 as officially."""

    tag: str
    num_prompts: int
    mean: float  # NaN without any prompt
    std: float  # sample standard deviation; NaN for less than two prompts

    def __str__(self) -> str:
        return f"{self.mean:.2f} +- {self.std:.2f}"


def read_prompts(path: Path, *, official: bool = True) -> list[str]:
    """The lines of prompts.txt, number 1 first; ValueError for another file unless not official."""
    if official:
        check_sha256(path, PROMPTS_SHA256, name="GenAI-Bench's prompts.txt", source=SOURCE)
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    prompts = [line.strip() for line in lines]
    if "" in prompts:
        raise ValueError(
            f"{path}: line {prompts.index('') + 1} is blank; expected one prompt in every line"
        )
    return prompts


def read_skills(path: Path, *, num_prompts: int, official: bool = True) -> dict[str, list[int]]:
    """genai_skills.json: tag -> numbers of its prompts."""
    if official:
        check_sha256(path, SKILLS_SHA256, name="GenAI-Bench's genai_skills.json", source=SOURCE)
    skills = read_json(path)
    check_skills(skills, num_prompts=num_prompts, source=path)
    return skills


def check_skills(skills: Mapping[str, Any], *, num_prompts: int, source: object) -> None:
    """ValueError for tags or numbers that the tables cannot be made of."""
    if set(skills) != set(TAGS):
        raise ValueError(f"{source} must have the tags {', '.join(TAGS)}, got {', '.join(skills)}")
    for tag, numbers in skills.items():
        if not numbers or not isinstance(numbers, list):
            raise ValueError(f"{source}: tag {tag!r} must list prompt numbers, got {numbers!r}")
        for number in numbers:
            if type(number) is not int or not 1 <= number <= num_prompts:
                raise ValueError(
                    f"{source}: tag {tag!r} has {number!r}, expected numbers from 1 to "
                    f"{num_prompts}"
                )


def read_scores(path: Path, *, num_prompts: int) -> dict[int, float]:
    """A JSON object, prompt number -> score; ValueError that names what no prompt or number is."""
    try:
        pairs = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=tuple)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error})") from None
    scores: dict[int, float] = {}
    if not isinstance(pairs, tuple):
        raise ValueError(f"{path} must hold one JSON object, prompt number to score")
    for key, score in pairs:
        if not key.isascii() or not key.isdigit() or not 1 <= int(key) <= num_prompts:
            raise ValueError(f"{path}: {key!r} is no prompt number from 1 to {num_prompts}")
        if type(score) not in (int, float) or not math.isfinite(score):
            raise ValueError(f"{path}: prompt {key} must have a number as its score, got {score!r}")
        if int(key) in scores:
            raise ValueError(f"{path}: prompt {int(key)} has two scores; keep one")
        scores[int(key)] = float(score)
    return scores


def score_skills(
    scores: Mapping[int, float], skills: Mapping[str, Sequence[int]]
) -> dict[str, SkillScore]:
    """Every tag and their union, `all`. Prompts without a score are left out of their tags."""
    members = {**skills, ALL: sorted(set().union(*skills.values()))}
    return {tag: _score_tag(tag, numbers, scores) for tag, numbers in members.items()}


def _score_tag(tag: str, numbers: Sequence[int], scores: Mapping[int, float]) -> SkillScore:
    values = torch.tensor([scores[number] for number in numbers if number in scores])
    std = float(values.std()) if len(values) > 1 else math.nan
    return SkillScore(tag, len(values), float(values.mean()), std)


def printed_tables(by_tag: Mapping[str, SkillScore]) -> dict[str, dict[str, str]]:
    """The three tables, each tag with its text, such as "0.67 +- 0.27"."""
    return {name: {tag: str(by_tag[tag]) for tag in tags} for name, tags in TABLES.items()}
