"""The drawn world: determinism, geometry, colours, and what is held out of training."""

import random
import time
from collections import Counter
from itertools import combinations, product
from math import hypot

import numpy as np
import pytest

from eval import scenes
from eval.backgrounds import BACKGROUNDS, PATTERNS, draw_background, sample_background
from eval.geneval_rules import relative_position
from eval.shapes import EXTENTS, REACH, SHAPES, outlines, shape_mask


@pytest.fixture(scope="module")
def train_scenes():
    return [scenes.scene_for("train", index) for index in range(5000)]


@pytest.fixture(scope="module")
def held_out_scenes():
    return [scenes.scene_for("held_out", index) for index in range(1000)]


def test_the_same_index_gives_the_same_scene_and_picture():
    first, second = scenes.scene_for("train", 7), scenes.scene_for("train", 7)
    assert first == second
    assert np.array_equal(scenes.render(first, 64), scenes.render(second, 64))
    assert first != scenes.scene_for("train", 8)
    assert first != scenes.scene_for("held_out", 7)


def test_a_picture_has_the_asked_size_and_scales_with_it():
    scene = scenes.scene_for("train", 3)
    small, large = scenes.render(scene, 64), scenes.render(scene, 128)
    assert small.shape == (64, 64, 3)
    assert small.dtype == np.uint8
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    # Measured mean difference 0.4 to 0.8 levels: rounding, edges and soft patterns.
    assert np.abs(halved - small).mean() < 1


def test_training_scenes_hold_nothing_held_out(train_scenes):
    for scene in train_scenes:
        looks = {(item.color, item.shape) for item in scene.objects}
        assert not looks & scenes.HELD_OUT_COLOR_SHAPES
        shapes = [item.shape for item in scene.objects]
        pairs = {frozenset(pair) for pair in combinations(shapes, 2)}
        assert not pairs & scenes.HELD_OUT_SHAPE_PAIRS


def test_every_held_out_scene_holds_something_held_out(held_out_scenes):
    assert all(scenes.is_held_out(scene) for scene in held_out_scenes)


def test_held_out_content_covers_every_shape_once_and_spreads_colors():
    colors, shapes = zip(*scenes.HELD_OUT_COLOR_SHAPES, strict=True)
    assert sorted(shapes) == sorted(SHAPES)
    assert len(set(colors)) == 8
    assert len(scenes.HELD_OUT_SHAPE_PAIRS) == 3


def test_training_shows_every_other_combination(train_scenes):
    looks = {(item.color, item.shape) for scene in train_scenes for item in scene.objects}
    assert looks == set(product(scenes.COLORS, SHAPES)) - scenes.HELD_OUT_COLOR_SHAPES
    pairs = {
        frozenset((a.shape, b.shape))
        for scene in train_scenes
        for a, b in combinations(scene.objects, 2)
        if a.shape != b.shape
    }
    assert len(pairs) == 28 - 3


def test_object_counts_and_repeated_shapes_are_frequent(train_scenes):
    counts = Counter(len(scene.objects) for scene in train_scenes)
    assert all(0.22 < counts[count] / 5000 < 0.28 for count in range(1, 5))
    several = [scene for scene in train_scenes if len(scene.objects) > 1]
    alike = sum(len({item.shape for item in scene.objects}) == 1 for scene in several)
    assert 0.25 < alike / len(several) < 0.5  # measured 0.36
    pairs = [scene for scene in train_scenes if len(scene.objects) == 2]
    different = sum(scene.objects[0].shape != scene.objects[1].shape for scene in pairs)
    assert different / len(pairs) > 0.45  # measured 0.53


def test_objects_keep_their_distance_and_stay_inside(train_scenes):
    for scene in train_scenes[:1000]:
        for item in scene.objects:
            assert min(item.box) >= scenes.BORDER - 1e-9
            assert max(item.box) <= 1 - scenes.BORDER + 1e-9
            low, high = scenes.SIZES[item.size]
            assert low <= item.radius <= high
        for a, b in combinations(scene.objects, 2):
            reach = a.radius * REACH[a.shape] + b.radius * REACH[b.shape]
            assert hypot(a.x - b.x, a.y - b.y) >= reach + scenes.GAP - 1e-9


def test_object_colors_are_far_from_each_other_and_from_every_background():
    palette = np.array(list(scenes.PALETTE.values()), float)
    gaps = [np.linalg.norm(a - b) for a, b in combinations(palette, 2)]
    assert min(gaps) > 89  # measured 90: yellow and orange
    shades = np.array(list(BACKGROUNDS.values()), float)
    assert min(np.linalg.norm(shade - color) for shade in shades for color in palette) > 94
    rng = random.Random(0)
    jittered = np.array([
        [min(255, max(0, c + rng.choice((-1, 1)) * scenes.COLOR_JITTER)) for c in color]
        for color in palette
        for _ in range(8)
    ])  # fmt: skip
    for _ in range(150):
        pixels = draw_background(sample_background(rng), 16).reshape(-1, 1, 3)
        distance = np.linalg.norm(pixels - jittered, axis=-1).min()
        assert distance >= scenes.MIN_BACKGROUND_DISTANCE  # measured least 75


def test_backgrounds_are_varied_and_of_low_contrast():
    rng = random.Random(0)
    drawn = [sample_background(rng) for _ in range(400)]
    assert {background.name for background in drawn} == set(BACKGROUNDS)
    assert {background.pattern for background in drawn} == set(PATTERNS)
    for background in drawn[:50]:
        picture = draw_background(background, 64)
        assert np.ptp(picture.reshape(-1, 3), axis=0).max() <= 16


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_centred_and_fills_its_box(shape):
    points = outlines(shape)[0][0]
    assert np.allclose(points.max(axis=0) + points.min(axis=0), 0)
    mask, left, top = shape_mask(shape, 50.0, 50.0, 30.0)
    half_width, half_height = (30 * extent for extent in EXTENTS[shape])
    columns, rows = np.nonzero(mask.max(axis=0) > 0.1)[0], np.nonzero(mask.max(axis=1) > 0.1)[0]
    assert left + columns[0] == pytest.approx(50 - half_width, abs=1)
    assert left + columns[-1] + 1 == pytest.approx(50 + half_width, abs=1)
    assert top + rows[0] == pytest.approx(50 - half_height, abs=1)
    assert top + rows[-1] + 1 == pytest.approx(50 + half_height, abs=1)


def test_clear_relations_agree_with_the_geneval_rule(train_scenes):
    stated = 0
    for scene in train_scenes[:1000]:
        for a, b in combinations(scene.objects, 2):
            relation = scenes.clear_relation(a, b)
            if relation is None:
                continue
            stated += 1
            boxes = [tuple(256 * edge for edge in item.box) for item in (a, b)]
            assert relative_position(*boxes) == {relation}
    assert stated > 500


def test_a_relation_seen_from_the_other_side_is_the_opposite(train_scenes):
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    for scene in train_scenes[:500]:
        for a, b in combinations(scene.objects, 2):
            relation = scenes.clear_relation(a, b)
            assert scenes.clear_relation(b, a) == (opposite[relation] if relation else None)


def test_drawing_is_fast_enough_to_feed_training():
    rng = random.Random(0)
    start = time.process_time()
    for _ in range(200):
        scenes.render(scenes.sample_scene(rng), 128)
    # Measured 0.6 ms a picture on an idle core; the limit leaves room for a busy machine.
    assert (time.process_time() - start) / 200 < 0.004


def test_wrong_arguments_are_explained():
    rng = random.Random(0)
    with pytest.raises(ValueError, match='split must be "train" or "held_out", got \'test\''):
        scenes.sample_scene(rng, "test")
    with pytest.raises(ValueError, match=r"num_objects must be 1\.\.4, got 5"):
        scenes.sample_scene(rng, num_objects=5)
    with pytest.raises(ValueError, match="image_size must be at least 16 pixels, got 8"):
        scenes.render(scenes.scene_for("train", 0), 8)
    with pytest.raises(ValueError, match="unknown shape 'hexagon'; expected one of circle"):
        shape_mask("hexagon", 5, 5, 5)
