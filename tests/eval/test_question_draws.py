"""The questions of fixed seeds: held-out scores compare only as long as these stay the same."""

import hashlib
import json
import random
from collections.abc import Iterable

import pytest

from eval.scene_questions import Question, describe, questions, sample_question
from eval.scenes import sample_scene

# The first 16 digits of SHA-256; a change that is meant needs new ones and new scores.
SAMPLED = {
    ("train", "existence"): "6bf277d4804a6f96",
    ("train", "color"): "f44db218f939df45",
    ("train", "shape"): "103c7d686c522c5a",
    ("train", "count"): "3e2330df91f518cf",
    ("train", "position"): "811a78eb0b9b7a63",
    ("train", "comparison"): "587fd34ecb26acd7",
    ("held_out", "existence"): "52cf411f70d13b4b",
    ("held_out", "color"): "8054a507e1152042",
    ("held_out", "shape"): "2ca168c1e184cfc1",
    ("held_out", "count"): "0d047e2ce3be0a98",
    ("held_out", "position"): "8a1d801c289ff09f",
    ("held_out", "comparison"): "ba81b8af09b24e32",
}
OF_SCENES = {"train": "aa08b650924c320e", "held_out": "2585bc367926579c"}


def digest(asked: Iterable[Question]) -> str:
    lines = "".join(f"{json.dumps([each.kind, each.question, each.answer])}\n" for each in asked)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]


@pytest.mark.parametrize(("split", "kind"), SAMPLED)
def test_the_sampled_questions_of_a_seed_are_unchanged(split, kind):
    rng = random.Random(f"golden:{kind}:{split}")
    found = digest(sample_question(rng, kind, split)[1] for _ in range(40))
    assert found == SAMPLED[split, kind]


@pytest.mark.parametrize("split", OF_SCENES)
def test_the_questions_about_the_scenes_of_a_seed_are_unchanged(split):
    rng = random.Random(f"golden:{split}")
    asked = []
    for number in range(100):
        scene = sample_scene(rng, split)
        asked += questions(scene, rng, balanced=number % 2 == 0)
        asked.append(describe(scene, rng))
    assert digest(asked) == OF_SCENES[split]
