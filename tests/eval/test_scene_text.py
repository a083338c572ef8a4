"""Captions and drawing prompts are true, complete, and keep to their split."""

import random
import re
from collections import Counter
from itertools import permutations

import pytest

from eval.scene_text import (
    EXAMPLE_WEIGHTS,
    NUMBER_WORDS,
    TASKS,
    captions,
    counted,
    description,
    drawing_prompt,
    example,
    joined,
    plural,
    scene_matching,
)
from eval.scenes import (
    COLORS,
    HELD_OUT_COLOR_SHAPES,
    HELD_OUT_SHAPE_PAIRS,
    clear_relation,
    is_held_out,
    sample_scene,
)
from eval.shapes import SHAPES

SINGULAR = {**{shape: shape for shape in SHAPES}, **{plural(shape): shape for shape in SHAPES}}
COUNTS = {"a": 1, "an": 1, **{word: count for count, word in enumerate(NUMBER_WORDS) if count}}
PHRASE = re.compile(
    rf"\b(?P<count>{'|'.join(COUNTS)}) (?:(?P<size>small|large) )?"
    rf"(?:(?P<color>{'|'.join(COLORS)}) )?(?P<shape>{'|'.join(sorted(SINGULAR, reverse=True))})\b"
)
RELATION = re.compile(rf"{PHRASE.pattern} (?:to the )?(?P<relation>left of|right of|above|below) ")


def read(caption):
    """What a caption says: a Counter of (size, colour, shape), None where it does not say."""
    found = Counter()
    for match in PHRASE.finditer(caption):
        look = (match["size"], match["color"], SINGULAR[match["shape"]])
        found[look] += COUNTS[match["count"]]
    return found


def seen(scene, *, like):
    """The scene's objects with the attributes that the look `like` leaves open blanked out."""
    return Counter(
        tuple(
            value if said else None
            for value, said in zip((o.size, o.color, o.shape), like, strict=True)
        )
        for o in scene.objects
    )


@pytest.mark.parametrize("write", [captions, description])
def test_a_caption_names_exactly_the_objects_of_its_scene(write):
    rng = random.Random(1)
    for index in range(1500):
        scene = sample_scene(rng, "train" if index % 2 else "held_out")
        said = read(write(scene, rng))
        assert said.total() == len(scene.objects)
        assert said == seen(scene, like=next(iter(said)))


def test_a_stated_relation_is_clearly_true_of_the_named_objects():
    rng = random.Random(2)
    stated = 0
    for _ in range(1500):
        scene = sample_scene(rng)
        caption = captions(scene, rng)
        match = RELATION.search(caption)
        if match is None:
            continue
        stated += 1
        first, second = list(PHRASE.finditer(caption))[:2]

        def fits(item, phrase):
            said = (phrase["size"], phrase["color"], SINGULAR[phrase["shape"]])
            looks = (item.size, item.color, item.shape)
            return all(s in (None, value) for s, value in zip(said, looks, strict=True))

        assert any(
            fits(a, first) and fits(b, second) and clear_relation(a, b) == match["relation"]
            for a, b in permutations(scene.objects, 2)
        ), caption
    assert stated > 150


def test_a_named_background_is_the_drawn_one():
    rng = random.Random(3)
    for _ in range(300):
        scene = sample_scene(rng)
        text = description(scene, rng)
        assert f"{scene.background.name} background" in text
        for pattern in ("plain", "striped", "checked", "dotted"):
            assert f"a {pattern}" not in text or scene.background.pattern == pattern


def test_captions_are_varied_and_repeat_for_the_same_seed():
    scene = sample_scene(random.Random(4), num_objects=3)
    texts = {captions(scene, random.Random(seed)) for seed in range(200)}
    assert len(texts) > 40
    assert captions(scene, random.Random(5)) == captions(scene, random.Random(5))


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_says_what_its_metadata_says(task, split):
    rng = random.Random(6)
    for _ in range(200):
        metadata = drawing_prompt(task, rng, split)
        assert metadata["tag"] == task
        said = read(metadata["prompt"])
        clauses = Counter({(None, c.get("color"), c["class"]): c["count"]
                           for c in metadata["include"]})  # fmt: skip
        assert said == clauses
        if task == "counting":
            clause = metadata["include"][0]
            assert metadata["exclude"] == [{"class": clause["class"], "count": clause["count"] + 1}]
        else:
            assert "exclude" not in metadata
        if task == "position":
            reference, placed = metadata["include"]
            relation, index = placed["position"]
            assert index == 0
            words = rf"{placed['class']} (to the )?{relation} an? {reference['class']}$"
            assert re.search(words, metadata["prompt"])


def _names_held_out(metadata):
    looks = {(c.get("color"), c["class"]) for c in metadata["include"]}
    pair = frozenset(c["class"] for c in metadata["include"])
    return bool(looks & HELD_OUT_COLOR_SHAPES) or pair in HELD_OUT_SHAPE_PAIRS


@pytest.mark.parametrize("task", TASKS)
def test_prompts_keep_to_their_split(task):
    rng = random.Random(7)
    assert not any(_names_held_out(drawing_prompt(task, rng)) for _ in range(500))
    if task not in ("single_object", "counting"):
        held_out = [drawing_prompt(task, rng, "held_out") for _ in range(200)]
        assert all(_names_held_out(metadata) for metadata in held_out)


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("task", TASKS)
def test_a_scene_made_for_a_prompt_fits_it(task, split):
    rng = random.Random(8)
    for _ in range(100):
        metadata = drawing_prompt(task, rng, split)
        scene = scene_matching(metadata, rng)
        said = read(metadata["prompt"])
        assert said == seen(scene, like=next(iter(said)))
        assert is_held_out(scene) == _names_held_out(metadata)
        if task == "position":
            reference, placed = scene.objects
            assert clear_relation(placed, reference) == metadata["include"][1]["position"][0]


def test_training_examples_follow_the_weights_and_stay_in_training():
    rng = random.Random(9)
    drawn = [example(rng) for _ in range(1500)]
    assert not any(is_held_out(scene) for scene, _ in drawn)
    assert all(read(caption).total() == len(scene.objects) for scene, caption in drawn)
    only = [example(rng, weights={"counting": 1.0})[0] for _ in range(50)]
    assert all(len({item.shape for item in scene.objects}) == 1 for scene in only)
    assert sum(EXAMPLE_WEIGHTS.values()) == pytest.approx(1)


def test_phrases_follow_english_grammar():
    assert counted(1, "orange ring") == "an orange ring"
    assert counted(3, "small red cross") == "three small red crosses"
    assert joined(["a", "b", "c"]) == "a, b and c"
    assert plural("star") == "stars"


def test_unknown_tasks_are_explained():
    rng = random.Random(0)
    with pytest.raises(ValueError, match="unknown task 'colour'; expected one of single_object"):
        drawing_prompt("colour", rng)
    with pytest.raises(ValueError, match=r"unknown tasks \['colour'\]"):
        example(rng, weights={"colour": 1.0})
