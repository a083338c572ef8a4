"""Sets of GenEval prompts: the official file, a user's own, and the drawn scenes of the nano model.

A set is told by the SHA-256 of its prompts, written one JSON object a line. The official file is
written that way, and so is what generation leaves in the folders of its pictures: file and pictures
can be compared without each other.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

from eval.answer_files import read_json_lines
from eval.geneval_rules import parse_metadata

OFFICIAL_SHA256 = "5c48e0813e812e3c373fa5c8ed07a8f0a483be30272b4427b0559c8048e67c13"
NUM_OFFICIAL_PROMPTS = 553
NUM_OFFICIAL_IMAGES = 4  # of each prompt
DRAWN_SCENES = "drawn"
SOURCE = "https://github.com/djghosh13/geneval (prompts/evaluation_metadata.jsonl)"

Metadata = Mapping[str, Any]


@dataclass(frozen=True)
class PromptSet:
    """Prompts with what they demand, in order; number i has folder i."""

    name: str  # official, drawn or own; of a choice of those, also how many
    prompts: tuple[Metadata, ...]
    num_all: int | None = None  # of the set that a choice was made from

    @cached_property
    def sha256(self) -> str:
        """Of all prompts as lines of JSON."""
        return prompts_sha256(map(json.dumps, self.prompts))

    def describe(self) -> dict[str, Any]:
        """What identifies the set, for JSON."""
        described = {"name": self.name, "num_prompts": len(self.prompts), "sha256": self.sha256}
        return described if self.num_all is None else {**described, "num_all": self.num_all}

    def limit(self, number: int | None) -> "PromptSet":
        """A choice of `number` prompts: the first of every task in turn, then the second ones, ...

        None, or as many as there are, is the set itself.
        """
        num_all = len(self.prompts)
        if number is None or number >= num_all:
            return self
        if number < 1:
            raise ValueError(f"at least 1 prompt is needed, got a limit of {number}")
        tasks: dict[str, list[Metadata]] = {}
        for prompt in self.prompts:
            tasks.setdefault(prompt["tag"], []).append(prompt)
        in_turn = [prompt for turn in zip_longest(*tasks.values()) for prompt in turn if prompt]
        return PromptSet(f"{number}-of-{num_all}-{self.name}", tuple(in_turn[:number]), num_all)


def prompts_sha256(lines: Iterable[str]) -> str:
    """SHA-256 of a prompt file with these lines of JSON."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def read_prompts(path: Path) -> PromptSet:
    """The prompts of a metadata file; any but the official ones are named `own`."""
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no prompt file {path}; download GenEval's evaluation_metadata.jsonl from "
            f"{SOURCE} and pass its path, or pass `{DRAWN_SCENES}` for drawn scenes"
        )
    records = []
    for place, record in read_json_lines(path):
        parse_metadata(record, place)
        records.append(record)
    if not records:
        raise ValueError(f"{path} has no prompts; expected one JSON object a line")
    own = PromptSet("own", tuple(records))
    return own if own.sha256 != OFFICIAL_SHA256 else PromptSet("official", own.prompts)


def drawn_prompts(num_per_task: int, *, seed: int = 0) -> PromptSet:
    """Held-out prompts of drawn scenes, the same as `python -m eval.nano` draws."""
    from eval.scene_text import held_out_prompts

    if num_per_task < 1:
        raise ValueError(f"at least 1 prompt per task is needed, got {num_per_task}")
    return PromptSet(DRAWN_SCENES, tuple(held_out_prompts(num_per_task, seed=seed)))
