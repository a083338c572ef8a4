"""GenEval image folders for tests: pictures of coloured boxes, and detections that know them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from eval.detections import DetectionHeader, ImageDetections, write_detections
from eval.geneval_prompts import PromptSet
from eval.geneval_rules import Detection
from unitok.files import write_json

SIDE = 64


@dataclass(frozen=True)
class Thing:
    """An object of one colour that fills its box."""

    name: str
    color: str
    box: tuple[int, int, int, int]
    score: float = 0.95


@dataclass(frozen=True)
class Case:
    """A prompt, the things in each of its pictures, and the reasons that the rules give."""

    metadata: Mapping[str, Any]
    pictures: Sequence[Sequence[Thing]]
    reasons: Sequence[str]


LEFT, RIGHT = (2, 20, 22, 40), (42, 20, 62, 40)
ABOVE, BELOW = (20, 2, 40, 22), (20, 42, 40, 62)
DOG = {"class": "dog", "count": 1}

CASES = (
    Case(
        {"tag": "single_object", "include": [DOG], "prompt": "a photo of a <dog> & a half"},
        [[Thing("dog", "red", LEFT)], [Thing("cat", "red", LEFT)]],
        ["", "expected dog>=1, found 0"],
    ),
    Case(
        {"tag": "two_object", "include": [DOG, {"class": "cat", "count": 1}], "prompt": "both"},
        [
            [Thing("dog", "red", LEFT), Thing("cat", "blue", RIGHT)],
            [Thing("dog", "red", LEFT), Thing("cat", "blue", RIGHT, score=0.3)],
        ],
        ["", "expected cat>=1, found 0"],
    ),
    Case(
        {
            "tag": "counting",
            "include": [{"class": "dog", "count": 2}],
            "exclude": [{"class": "dog", "count": 3}],
            "prompt": "two dogs",
        },
        [
            [
                Thing("dog", "red", LEFT),
                Thing("dog", "red", RIGHT),
                Thing("dog", "red", ABOVE, 0.9),
            ],
            [Thing("dog", "red", box) for box in (LEFT, RIGHT, ABOVE)],
        ],
        ["", "expected dog<3, found 3"],
    ),
    Case(
        {"tag": "colors", "include": [{**DOG, "color": "green"}], "prompt": "a green dog"},
        [
            [Thing("dog", "green", LEFT), Thing("dog", "red", RIGHT, score=0.9)],
            [Thing("dog", "green", LEFT, score=0.9), Thing("dog", "red", RIGHT)],
        ],
        ["", "expected green dog>=1, found 0 green; and 1 red"],
    ),
    Case(
        {
            "tag": "position",
            "include": [DOG, {"class": "cat", "count": 1, "position": ["below", 0]}],
            "prompt": "a cat below a dog",
        },
        [
            [Thing("dog", "red", ABOVE), Thing("cat", "red", BELOW)],
            [Thing("dog", "red", BELOW), Thing("cat", "red", ABOVE)],
        ],
        ["", "expected cat below target, found above target"],
    ),
    Case(
        {
            "tag": "color_attr",
            "include": [
                {**DOG, "color": "green"},
                {"class": "cat", "count": 1, "color": "pink"},
            ],
            "prompt": "a green dog and a pink cat",
        },
        [
            [Thing("dog", "green", LEFT), Thing("cat", "pink", RIGHT)],
            [Thing("dog", "pink", LEFT), Thing("cat", "green", RIGHT)],
        ],
        [
            "",
            "expected green dog>=1, found 0 green; and 1 pink\n"
            "expected pink cat>=1, found 0 pink; and 1 green",
        ],
    ),
)


def write_pictures(cases: Sequence[Case], folder: Path) -> Path:
    """The pictures of cases as `generate` leaves them, two of each prompt."""
    for number, case in enumerate(cases):
        own = folder / f"{number:05d}"
        (own / "samples").mkdir(parents=True)
        (own / "metadata.jsonl").write_text(json.dumps(case.metadata) + "\n")
        for place, things in enumerate(case.pictures):
            picture = Image.new("RGB", (SIDE, SIDE), "#999999")
            for thing in things:
                ImageDraw.Draw(picture).rectangle(thing.box, fill=thing.color)
            picture.save(own / "samples" / f"{place:04d}.png")
    prompts = PromptSet("own", tuple(case.metadata for case in cases))
    write_json(
        {
            "model": "a painter",
            "model_fingerprint": "0123",
            "prompts": prompts.describe(),
            "num_images": 2,
            "seed": 0,
            "sampling": {},
        },
        folder / "generation.json",
    )
    return folder


def write_known(cases: Sequence[Case], path: Path, *, name: str = "known") -> Path:
    """A file of detections with exactly the things in the pictures, and their colours."""
    images = []
    for number, case in enumerate(cases):
        for place, things in enumerate(case.pictures):
            found: dict[str, list[Detection]] = {}
            colors: dict[str, list[str | None]] = {}
            for thing in things:
                found.setdefault(thing.name, []).append(Detection(thing.box, thing.score))
                colors.setdefault(thing.name, []).append(thing.color)
            key = f"{number:05d}/samples/{place:04d}.png"
            images.append(ImageDetections(key, found, colors))
    write_detections(path, DetectionHeader(name, "beef", color_classifier="a hand"), images)
    return path
