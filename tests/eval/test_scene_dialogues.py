"""Dialogues alternate, show pictures where they are spoken of, and stay in their split."""

import random

import pytest

from eval.scene_dialogues import DIALOGUE_WEIGHTS, dialogue
from eval.scenes import Scene, is_held_out
from tests.eval.test_scene_questions import answer
from tests.eval.test_scene_text import read


def _pictures(message):
    return [part["image"] for part in message["content"] if part["type"] == "image"]


def _text(message):
    (text,) = [part["text"] for part in message["content"] if part["type"] == "text"]
    return text


@pytest.mark.parametrize("style", DIALOGUE_WEIGHTS)
def test_roles_alternate_and_training_pictures_are_training_scenes(style):
    rng = random.Random(1)
    for _ in range(100):
        messages = dialogue(rng, style=style)
        roles = [message["role"] for message in messages]
        assert roles == ["user", "assistant"] * (len(messages) // 2)
        pictures = [picture for message in messages for picture in _pictures(message)]
        assert len(pictures) == (2 if style == "about_two" else 1)
        assert all(isinstance(scene, Scene) and not is_held_out(scene) for scene in pictures)


@pytest.mark.parametrize("style", ["draw", "draw_and_ask"])
def test_a_request_is_answered_by_a_fitting_picture(style):
    rng = random.Random(2)
    for _ in range(200):
        request, reply, *_ = dialogue(rng, style=style)
        assert _pictures(request) == []
        (scene,) = _pictures(reply)
        assert read(_text(reply)).total() == len(scene.objects)
        asked = read(_text(request).replace("a picture", "").replace("a photo", ""))
        assert asked.total() in (0, len(scene.objects))


@pytest.mark.parametrize("style", ["about_one", "draw_and_ask"])
def test_questions_about_one_picture_are_answered_rightly(style):
    rng = random.Random(3)
    for _ in range(200):
        messages = dialogue(rng, style=style)
        (scene,) = [picture for message in messages for picture in _pictures(message)]
        asked = messages if style == "about_one" else messages[2:]
        for question, reply in zip(asked[::2], asked[1::2], strict=True):
            if not _text(reply).endswith("."):  # a sentence answers a request for a description
                assert answer(scene, _text(question)) == _text(reply)


def test_questions_about_two_pictures_say_which_one_and_are_answered_rightly():
    rng = random.Random(4)
    names = {0: ("the first picture", "picture one"), 1: ("the second picture", "picture two")}
    for _ in range(200):
        messages = dialogue(rng, style="about_two")
        scenes = _pictures(messages[0])
        for question, reply in zip(messages[::2], messages[1::2], strict=True):
            text = _text(question)
            ((which, name),) = [(i, n) for i, ns in names.items() for n in ns if n in text]
            if _text(reply).endswith("."):
                continue
            bare = text.removeprefix(f"in {name}, ").replace(name, "the picture")
            assert answer(scenes[which], bare) == _text(reply)


def test_dialogues_repeat_for_the_same_seed():
    assert dialogue(random.Random(5)) == dialogue(random.Random(5))


def test_held_out_dialogues_show_held_out_scenes():
    rng = random.Random(6)
    for _ in range(100):
        messages = dialogue(rng, "held_out", style="about_one")
        assert all(is_held_out(scene) for message in messages for scene in _pictures(message))


def test_wrong_arguments_are_explained():
    with pytest.raises(ValueError, match="unknown style 'song'; expected one of about_one"):
        dialogue(random.Random(0), style="song")
    with pytest.raises(ValueError, match='split must be "train" or "held_out"'):
        dialogue(random.Random(0), "test")
