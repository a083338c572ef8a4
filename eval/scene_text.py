"""What can be said about a drawn scene: captions, drawing prompts, and scenes that fit a prompt.

Every caption mentions all objects, in as much detail as chance decides: the number of objects named
is always the number of objects drawn, and every stated relation holds with a clear margin.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

from eval.scenes import (
    COLORS,
    HELD_OUT_COLOR_SHAPES,
    HELD_OUT_SHAPE_PAIRS,
    Scene,
    SceneObject,
    Split,
    check_split,
    clear_relation,
    compose,
    is_held_out_pair,
    is_held_out_shape_pair,
    sample_scene,
)
from eval.shapes import SHAPES

NUMBER_WORDS = ("zero", "one", "two", "three", "four")
PREFIXES = (
    "", "a photo of ", "a picture of ", "an image of ", "a drawing of ", "the picture shows ",
)  # fmt: skip
RELATION_WORDS = {
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "above": ("above",),
    "below": ("below",),
}
PATTERN_WORDS = {"plain": "plain ", "gradient": "", "striped": "striped ", "checked": "checked ",
                 "dotted": "dotted "}  # fmt: skip

# The six GenEval tags, in GenEval's order.
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
FREE = "free"  # any scene with any caption
# The free share keeps fuller sentences, three-object scenes and backgrounds frequent.
EXAMPLE_WEIGHTS: Mapping[str, float] = {
    "single_object": 0.08, "two_object": 0.1, "counting": 0.12, "colors": 0.1, "position": 0.14,
    "color_attr": 0.14, FREE: 0.32,
}  # fmt: skip

Metadata = dict[str, Any]


# ---- phrases -------------------------------------------------------------------------------------


def plural(shape: str) -> str:
    """The shape's name for several of them."""
    return shape + ("es" if shape.endswith("s") else "s")


def counted(count: int, phrase: str) -> str:
    """A count and a phrase ending in a shape: "a red star", "an orange ring", "three hearts"."""
    if count == 1:
        return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"
    *words, shape = phrase.split(" ")
    return " ".join([NUMBER_WORDS[count], *words, plural(shape)])


def joined(phrases: Sequence[str]) -> str:
    """Phrases as a list in words: "a", "a and b", "a, b and c"."""
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def object_phrase(item: SceneObject, *, with_color: bool = True, with_size: bool = False) -> str:
    """The object without article, such as "small red star"."""
    size = f"{item.size} " if with_size else ""
    color = f"{item.color} " if with_color else ""
    return f"{size}{color}{item.shape}"


def background_phrase(scene: Scene, *, with_pattern: bool = False) -> str:
    """Where the objects lie, such as "on a striped mint background"."""
    pattern = PATTERN_WORDS[scene.background.pattern] if with_pattern else ""
    return f"on a {pattern}{scene.background.name} background"


def _inventory(phrases: Sequence[str]) -> list[str]:
    """Equal phrases put together and counted, in order of first appearance."""
    return [counted(phrases.count(phrase), phrase) for phrase in dict.fromkeys(phrases)]


# ---- captions ------------------------------------------------------------------------------------


def captions(scene: Scene, rng: random.Random) -> str:
    """One of many true captions: all objects, with or without colours, sizes, relation, ground."""
    with_color = rng.random() < 0.7
    with_size = rng.random() < 0.25
    body = None
    if rng.random() < 0.4:
        body = _with_relation(scene, rng, with_color=with_color, with_size=with_size)
    if body is None:
        body = _listed(scene, rng, with_color=with_color, with_size=with_size)
    if rng.random() < 0.2:
        body = f"{body} {background_phrase(scene, with_pattern=rng.random() < 0.5)}"
    return rng.choice(PREFIXES) + body


def description(scene: Scene, rng: random.Random) -> str:
    """A full sentence with the colour and size of every object, a relation if clear, the ground."""
    body = None
    if rng.random() < 0.5:
        body = _with_relation(scene, rng, with_color=True, with_size=True)
    body = body or _listed(scene, rng, with_color=True, with_size=True)
    opening = rng.choice(("the picture shows", "the image shows", "i see", "this is"))
    return f"{opening} {body} {background_phrase(scene, with_pattern=rng.random() < 0.5)}."


def _listed(scene: Scene, rng: random.Random, *, with_color: bool, with_size: bool) -> str:
    items = rng.sample(scene.objects, len(scene.objects))
    return joined(
        _inventory([object_phrase(o, with_color=with_color, with_size=with_size) for o in items])
    )


def _with_relation(
    scene: Scene, rng: random.Random, *, with_color: bool, with_size: bool
) -> str | None:
    """Two objects related, the others listed; None if no pair is clearly placed and told apart."""
    items = rng.sample(scene.objects, len(scene.objects))
    phrases = [object_phrase(o, with_color=with_color, with_size=with_size) for o in items]
    for a, b in permutations(range(len(items)), 2):
        relation = clear_relation(items[a], items[b])
        if relation is None or phrases.count(phrases[a]) > 1 or phrases.count(phrases[b]) > 1:
            continue
        words = rng.choice(RELATION_WORDS[relation])
        text = f"{counted(1, phrases[a])} {words} {counted(1, phrases[b])}"
        others = [phrase for i, phrase in enumerate(phrases) if i not in (a, b)]
        return f"{text}, and {joined(_inventory(others))}" if others else text
    return None


# ---- drawing prompts -----------------------------------------------------------------------------


def drawing_prompt(task: str, rng: random.Random, split: Split = "train") -> Metadata:
    """GenEval metadata {tag, include, exclude?, prompt} of a drawing task.

    Held-out prompts name a held-out colour-shape pair (colors), a held-out pair of shapes
    (two_object, position) or either (color_attr). `single_object` and `counting` name one shape
    without a colour, so there is nothing to hold out: both splits draw from the same prompts.
    """
    check_split(split)
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; expected one of {', '.join(TASKS)}")
    include = _clauses(task, rng, split)
    metadata: Metadata = {"tag": task, "include": include}
    if task == "counting":
        metadata["exclude"] = [{"class": include[0]["class"], "count": include[0]["count"] + 1}]
    return {**metadata, "prompt": _prompt(include, rng)}


def held_out_prompts(num_per_task: int, *, seed: int = 0) -> list[Metadata]:
    """The drawing prompts by which models are measured, task by task."""
    return [
        drawing_prompt(task, random.Random(f"prompt:{seed}:{task}:{index}"), "held_out")
        for task in TASKS
        for index in range(num_per_task)
    ]


def _clauses(task: str, rng: random.Random, split: Split) -> list[dict[str, Any]]:
    if task in ("single_object", "counting"):
        count = 1 if task == "single_object" else rng.randint(2, 4)
        return [{"class": rng.choice(SHAPES), "count": count}]
    if task == "colors":
        color, shape = _color_shape(rng, split)
        return [{"class": shape, "count": 1, "color": color}]
    if task == "color_attr":
        return [
            {"class": shape, "count": 1, "color": color}
            for shape, color in _two_looks(rng, split)
        ]  # fmt: skip
    include = [{"class": shape, "count": 1} for shape in _shape_pair(rng, split)]
    if task == "position":
        include[1]["position"] = [rng.choice(tuple(RELATION_WORDS)), 0]
    return include


def _prompt(include: Sequence[Mapping[str, Any]], rng: random.Random) -> str:
    """Words for the clauses; GenEval's own wording, "a photo of", half of the time."""
    phrases = [
        counted(clause["count"], " ".join([*filter(None, [clause.get("color")]), clause["class"]]))
        for clause in include
    ]
    if "position" in include[-1]:
        words = rng.choice(RELATION_WORDS[include[1]["position"][0]])
        body = f"{phrases[1]} {words} {phrases[0]}"
    else:
        body = joined(phrases)
    prefix = "a photo of " if rng.random() < 0.5 else rng.choice(("", "a picture of "))
    return prefix + body


def _color_shape(rng: random.Random, split: Split) -> tuple[str, str]:
    if split == "held_out":
        return rng.choice(sorted(HELD_OUT_COLOR_SHAPES))
    while True:
        color, shape = rng.choice(COLORS), rng.choice(SHAPES)
        if not is_held_out_pair(color, shape):
            return color, shape


def _shape_pair(rng: random.Random, split: Split) -> list[str]:
    """Two different shapes in random order."""
    if split == "held_out":
        pair = sorted(rng.choice(sorted(sorted(pair) for pair in HELD_OUT_SHAPE_PAIRS)))
        rng.shuffle(pair)
        return pair
    while True:
        pair = rng.sample(SHAPES, 2)
        if not is_held_out_shape_pair(*pair):
            return pair


def _two_looks(rng: random.Random, split: Split) -> list[tuple[str, str]]:
    """Two (shape, colour) looks, different in both, for attribute binding."""
    while True:
        colors = rng.sample(COLORS, 2)
        looks = list(zip(rng.sample(SHAPES, 2), colors, strict=True))
        if split == "held_out" and rng.random() < 0.5:
            looks = list(zip(_shape_pair(rng, split), colors, strict=True))
        elif split == "held_out":
            color, shape = _color_shape(rng, split)
            looks[rng.randrange(2)] = (shape, color)
        (a, color_a), (b, color_b) = looks
        held_out = is_held_out_shape_pair(a, b) or any(
            is_held_out_pair(color, shape) for shape, color in looks
        )
        if a != b and color_a != color_b and held_out == (split == "held_out"):
            return looks


# ---- scenes for prompts --------------------------------------------------------------------------


def scene_matching(metadata: Mapping[str, Any], rng: random.Random) -> Scene:
    """A scene that shows exactly what a drawing prompt names; what it leaves open is random.

    A prompt without held-out content gives a training scene.
    """
    looks = [
        (clause["class"], clause.get("color") or _free_color(rng, clause["class"]))
        for clause in metadata["include"]
        for _ in range(clause["count"])
    ]
    relation = next((c["position"][0] for c in metadata["include"] if "position" in c), None)
    if relation is None:
        return compose(rng, looks)
    return compose(rng, looks, accept=lambda scene: _is_placed(scene, relation))


def _is_placed(scene: Scene, relation: str) -> bool:
    reference, item = scene.objects
    return clear_relation(item, reference) == relation


def _free_color(rng: random.Random, shape: str) -> str:
    return rng.choice([color for color in COLORS if not is_held_out_pair(color, shape)])


def example(
    rng: random.Random,
    split: Split = "train",
    *,
    weights: Mapping[str, float] = EXAMPLE_WEIGHTS,
) -> tuple[Scene, str]:
    """A scene and a caption; `weights` gives the shares of the six tasks and of "free" scenes."""
    unknown = set(weights) - {*TASKS, FREE}
    if unknown:
        raise ValueError(f"unknown tasks {sorted(unknown)}; expected {', '.join((*TASKS, FREE))}")
    task = rng.choices(tuple(weights), tuple(weights.values()))[0]
    if task == FREE:
        scene = sample_scene(rng, split)
        return scene, captions(scene, rng)
    metadata = drawing_prompt(task, rng, split)
    return scene_matching(metadata, rng), metadata["prompt"]
