"""The inspector reads back what was drawn, tolerates mild damage, and owns up to heavy damage."""

import random

import numpy as np
import pytest
from scipy import ndimage

from eval.inspector import MIN_SCORE, inspect, same_objects
from eval.scenes import compose, render, sample_scene, scene_for


def _share_read(image_size, *, num_scenes, damage=lambda image: image):
    """Share of fresh scenes of both splits whose objects are all read back."""
    rng = random.Random(image_size)
    right = 0
    for index in range(num_scenes):
        scene = sample_scene(rng, "train" if index % 2 else "held_out")
        right += same_objects(inspect(damage(render(scene, image_size))), scene)
    return right / num_scenes


def _blurred(image, sigma=1.0):
    return ndimage.gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)).astype(np.uint8)


def _noisy(image):
    noise = np.random.default_rng(0).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("image_size", [64, 96, 128])
def test_fresh_renders_are_read_back(image_size):
    assert _share_read(image_size, num_scenes=150) == 1.0  # measured 1.0 on 2,000 at every size


@pytest.mark.slow
@pytest.mark.parametrize("image_size", [64, 96, 128])
def test_two_thousand_fresh_renders_are_read_back(image_size):
    assert _share_read(image_size, num_scenes=2000) >= 0.995


@pytest.mark.parametrize("damage", [_blurred, _noisy])
def test_mild_damage_is_tolerated(damage):
    assert _share_read(128, num_scenes=100, damage=damage) >= 0.98  # measured 1.0 on 2,000


@pytest.mark.parametrize("image_size", [64, 128])
def test_boxes_and_places_match_the_drawing(image_size):
    for index in range(30):
        scene = scene_for("train", index)
        found = inspect(render(scene, image_size))
        for wanted in scene.objects:
            item = min(found, key=lambda o, w=wanted: abs(o.x - w.x) + abs(o.y - w.y))
            # Measured largest errors: 1.9 px (the tip of a heart), 0.0064 of the side at 64 px.
            assert np.abs(np.array(item.box) - np.array(wanted.box) * image_size).max() < 2.0
            assert item.radius == pytest.approx(wanted.radius, abs=0.008)


def test_an_empty_picture_has_no_objects():
    background = render(scene_for("train", 1), 128)[:1, :1]
    assert inspect(np.broadcast_to(background, (128, 128, 3)).copy()) == []


def test_specks_are_dropped():
    image = np.full((128, 128, 3), 160, np.uint8)
    image[60:68, 60:68] = (214, 32, 38)  # 64 px, below 0.5 % of the picture
    assert inspect(image) == []


def test_an_ill_formed_blob_scores_low():
    image = np.full((128, 128, 3), 160, np.uint8)
    image[20:26, 10:110] = (214, 32, 38)  # a long bar is none of the eight shapes
    (blob,) = inspect(image)
    assert blob.color == "red"
    assert blob.score < MIN_SCORE


def test_a_color_outside_the_palette_scores_low():
    image = np.full((128, 128, 3), 160, np.uint8)
    image[40:80, 40:80] = (0, 255, 255)
    (blob,) = inspect(image)
    assert blob.shape == "square"
    assert blob.score < MIN_SCORE


def test_touching_objects_of_different_colors_are_told_apart():
    image = np.full((128, 128, 3), 160, np.uint8)
    image[40:70, 30:60] = (214, 32, 38)
    image[40:70, 60:90] = (32, 72, 208)
    assert {(item.shape, item.color) for item in inspect(image)} == {
        ("square", "red"),
        ("square", "blue"),
    }


def test_any_change_of_a_scene_is_noticed():
    rng = random.Random(0)
    looks = [("star", "red"), ("circle", "blue")]
    scene = compose(rng, looks)
    found = inspect(render(scene, 128))
    assert same_objects(found, scene)
    for changed in (looks[:1], [*looks, looks[0]], [("star", "blue"), ("circle", "red")]):
        assert not same_objects(found, compose(rng, changed))
    assert not same_objects(found, compose(rng, looks))  # other places
    assert not same_objects([], scene)


def test_an_object_drawn_badly_does_not_count():
    scene = compose(random.Random(0), [("star", "red")])
    image = render(scene, 128)
    ruined = ndimage.gaussian_filter(image.astype(np.float32), (9, 9, 0)).astype(np.uint8)
    assert not same_objects(inspect(ruined), scene)


def test_wrong_pictures_are_explained():
    with pytest.raises(ValueError, match=r"square RGB picture \(H, H, 3\), got \(64, 32, 3\)"):
        inspect(np.zeros((64, 32, 3), np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 pixels 0\.\.255, got float32"):
        inspect(np.zeros((64, 64, 3), np.float32))


def test_a_blot_larger_than_any_object_does_not_count() -> None:
    picture = np.full((64, 64, 3), 165, np.uint8)
    picture[10:54, 10:54] = (32, 72, 208)
    assert [found.score for found in inspect(picture)] == [0.0]
