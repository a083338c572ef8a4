"""Short conversations about drawn scenes, in which both sides may show a picture.

A message is {"role": "user" | "assistant", "content": [part, ...]}; a part is
{"type": "text", "text": ...} or {"type": "image", "image": Scene}.
"""

import random
from collections.abc import Sequence
from typing import Any

from eval.scene_questions import Question, describe, questions
from eval.scene_text import captions, example
from eval.scenes import Scene, Split, check_split, sample_scene

Message = dict[str, Any]

# Drawing is both the harder skill and the longer answer, so it has the largest share.
DIALOGUE_WEIGHTS = {"about_one": 0.35, "draw": 0.25, "draw_and_ask": 0.2, "about_two": 0.2}

_DRAW = (
    "draw {}", "draw {}.", "please draw {}.", "can you draw {}?", "could you draw {}?",
    "make a picture of {}.", "i would like a picture of {}.", "show me {}.", "paint {}, please.",
)  # fmt: skip
_DRAW_FREELY = ("draw something.", "please draw a picture.", "surprise me with a picture.")
_DONE = ("here you are: {}.", "i drew {}.", "here is your picture: {}.", "done: {}.")
# Prompts may begin like captions; a request asks for the content.
_OPENINGS = ("a photo of ", "a picture of ", "an image of ", "a drawing of ", "the picture shows ")
_WHICH = (("first picture", "picture one"), ("second picture", "picture two"))


def dialogue(
    rng: random.Random, split: Split = "train", *, style: str | None = None
) -> list[Message]:
    """A random conversation; `style` picks one of `DIALOGUE_WEIGHTS` instead of chance.

    `about_one`: several questions about a picture. `draw`: a request answered by a picture and a
    sentence. `draw_and_ask`: questions about the picture just drawn. `about_two`: two pictures and
    questions about either.
    """
    check_split(split)
    if style is None:
        style = rng.choices(tuple(DIALOGUE_WEIGHTS), tuple(DIALOGUE_WEIGHTS.values()))[0]
    if style not in _STYLES:
        raise ValueError(f"unknown style {style!r}; expected one of {', '.join(_STYLES)}")
    return _STYLES[style](rng, split)


def _about_one(rng: random.Random, split: Split) -> list[Message]:
    scene = sample_scene(rng, split)
    first, *others = _some_questions(scene, rng)
    return _asked(first, scene) + [m for question in others for m in _asked(question)]


def _draw(rng: random.Random, split: Split) -> list[Message]:
    scene, content = _wish(rng, split)
    return _drawn(scene, content, rng)


def _draw_and_ask(rng: random.Random, split: Split) -> list[Message]:
    scene, content = _wish(rng, split)
    asked = [m for question in _some_questions(scene, rng) for m in _asked(question)]
    return _drawn(scene, content, rng) + asked


def _about_two(rng: random.Random, split: Split) -> list[Message]:
    scenes = [sample_scene(rng, split), sample_scene(rng, split)]
    messages: list[Message] = []
    for which in rng.sample((0, 1), 2):
        question = rng.choice(_some_questions(scenes[which], rng))
        text = _about(question, rng.choice(_WHICH[which]), rng)
        pictures = () if messages else scenes
        messages += _asked(Question(question.kind, text, question.answer), *pictures)
    return messages


_STYLES = {
    "about_one": _about_one,
    "draw": _draw,
    "draw_and_ask": _draw_and_ask,
    "about_two": _about_two,
}


def _wish(rng: random.Random, split: Split) -> tuple[Scene, str | None]:
    """A scene and what to ask for to get it; None leaves the choice to the one who draws."""
    if rng.random() < 0.05:
        return sample_scene(rng, split), None
    scene, caption = example(rng, split)
    for opening in _OPENINGS:
        caption = caption.removeprefix(opening)
    return scene, caption


def _drawn(scene: Scene, content: str | None, rng: random.Random) -> list[Message]:
    """The request, and the picture with a short sentence that repeats what was asked for."""
    if content is None:
        request, content = rng.choice(_DRAW_FREELY), captions(scene, rng)
        for opening in _OPENINGS:
            content = content.removeprefix(opening)
    else:
        request = rng.choice(_DRAW).format(content)
    reply = rng.choice(_DONE).format(content)
    return [_message("user", request), _message("assistant", reply, scene)]


def _some_questions(scene: Scene, rng: random.Random) -> list[Question]:
    """One to three questions, one of them now and then a request to describe the picture."""
    found = questions(scene, rng)[: rng.randint(1, 3)]
    if not found or rng.random() < 0.25:
        found.insert(0, describe(scene, rng))
    return found[:3]


def _about(question: Question, which: str, rng: random.Random) -> str:
    """The question restricted to one picture: "in the first picture, is there a star?"."""
    name = f"the {which}" if which.endswith("picture") else which
    text = question.question
    if question.kind == "description":
        return f"describe {name}."
    if "the picture" in text:
        return text.replace("the picture", name)
    return f"in {name}, {text}" if rng.random() < 0.5 else f"{text[:-1]} in {name}?"


def _asked(question: Question, *pictures: Scene) -> list[Message]:
    return [
        _message("user", question.question, *pictures),
        _message("assistant", question.answer),
    ]  # fmt: skip


def _message(role: str, text: str, *pictures: Scene) -> Message:
    """Pictures come first: a question follows what it is about, a sentence what was drawn."""
    parts: Sequence[Message] = [{"type": "image", "image": scene} for scene in pictures]
    return {"role": role, "content": [*parts, {"type": "text", "text": text}]}
