"""What the training rows ask about drawn scenes.

How two objects stand to each other is learned last. What helps are short rows about nothing else:
places by themselves, and the relation in steps.
"""

import random
from collections.abc import Callable, Collection, Sequence
from itertools import permutations
from operator import attrgetter
from typing import TypeAlias

from eval.scene_questions import (
    NOUN,
    Question,
    describe,
    position_question,
    questions,
    references,
)
from eval.scene_text import object_phrase
from eval.scenes import Scene, SceneObject, clear_relation

# Of the question rows only describe the picture: what follows a description could be answered
# without looking.
DESCRIPTION_SHARE = 0.1
MAX_QUESTIONS = 6  # about one picture
QUESTION_DRAWS = 3  # of one question per kind, to choose from
# What takes two objects is learned last, and asked most.
KIND_WEIGHTS = {
    "position": 6, "comparison": 5, "place": 4, "count": 4, "existence": 1, "color": 1, "shape": 1,
}  # fmt: skip
# Short rows about places, as shares of the drill rows. Without them the relation of two objects
# stays at chance long after color, shape and size of each are read; in steps (where is one, where
# is the other, how do they stand) it is learned first.
DRILLS = {"place": 0.15, "position": 0.5, "steps": 0.3, "listing": 0.05}
MAX_DRILLED = 2  # places or positions in one row: short rows, so that a step holds many
COLUMNS = ("far left", "left", "right", "far right")
ROWS = ("top", "high", "low", "bottom")
# Every object in the order of its place: nothing about the answer is left to chance, so each of its
# words teaches reading.
LISTINGS = {"x": "what do you see from left to right?", "y": "what do you see from above to below?"}

QuestionChooser: TypeAlias = Callable[[Scene, random.Random], Sequence[Question]]


def choose_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """What one conversation asks about a training picture."""
    if rng.random() < DESCRIPTION_SHARE:
        return [describe(scene, rng)]
    drawn = [*questions(scene, rng, balanced=False), *places(scene, rng)]
    for _ in range(QUESTION_DRAWS):
        drawn += questions(scene, rng)
    asked = {item.question: item for item in drawn}  # each wording once
    # The largest of random numbers to the power 1 / weight: a weighted draw without repetition.
    by_chance = sorted(
        asked.values(), key=lambda item: rng.random() ** (1 / KIND_WEIGHTS[item.kind])
    )
    return by_chance[-MAX_QUESTIONS:]


def places(scene: Scene, rng: random.Random) -> list[Question]:
    """Where in the picture each object is that can be told from the others."""
    asked = []
    for item in scene.objects:
        if names := references(scene, item, ("size", "color", "shape")):
            asked.append(_place(item, rng.choice(names)))
    return asked


def _place(item: SceneObject, name: str) -> Question:
    name = name.replace(NOUN, "object")
    return Question(
        "place",
        f"where in the picture is the {name}?",
        f"{COLUMNS[int(4 * item.x)]}, {ROWS[int(4 * item.y)]}",
    )


def position_in_steps(scene: Scene, rng: random.Random) -> list[Question]:
    """Where two objects are, then how they stand to each other; none where no pair is clear."""
    pairs = [(a, b) for a, b in permutations(scene.objects, 2) if clear_relation(a, b)]
    rng.shuffle(pairs)
    for pair in pairs:
        names = [references(scene, item, ("color", "shape")) for item in pair]
        if all(names):
            chosen = [rng.choice(each) for each in names]
            relation = position_question(scene, rng, a=chosen[0], b=chosen[1])
            return [*map(_place, pair, chosen), relation]
    return []


def listing(scene: Scene, rng: random.Random) -> Question:
    """A request to name all objects along one axis, and what answers it."""
    axis = rng.choice(sorted(LISTINGS))
    objects = sorted(scene.objects, key=attrgetter(axis))
    named = ", ".join(object_phrase(item, with_size=True) for item in objects)
    return Question("listing", LISTINGS[axis], named)


def drill(scene: Scene, rng: random.Random) -> list[Question]:
    """A few questions about places, or a listing where a picture allows none of the kind drawn."""
    kind = rng.choices(tuple(DRILLS), tuple(DRILLS.values()))[0]
    asked: list[Question] = []
    if kind == "steps":
        asked = position_in_steps(scene, rng)
    elif kind == "place":
        asked = _some(places(scene, rng), rng)
    elif kind == "position":
        draws = [questions(scene, rng, kinds=("position",)) for _ in range(2 * MAX_DRILLED)]
        asked = _some({item.question: item for drawn in draws for item in drawn}.values(), rng)
    return asked or [listing(scene, rng)]


def _some(asked: Collection[Question], rng: random.Random) -> list[Question]:
    return rng.sample(list(asked), min(MAX_DRILLED, len(asked)))
