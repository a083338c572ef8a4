"""Questions about drawn scenes with one short, certain answer, balanced against blind guessing.

A question comes from a form (`eval/question_forms.py`). `sample_question` draws the answer before
the scene, so within every form all answers are equally frequent, and a reader of the question alone
learns nothing.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from eval.question_forms import FORMS, KINDS, NOUN, Form, Words, references
from eval.scene_text import description
from eval.scenes import Scene, Split, sample_scene

__all__ = [
    "KINDS",
    "NOUN",
    "Question",
    "describe",
    "position_question",
    "questions",
    "references",
    "sample_question",
]

DESCRIBE = (
    "describe the picture.", "describe the image.", "what is in the picture?",
    "what do you see in the picture?", "what does the picture show?",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A question about one scene and its only right answer."""

    kind: str
    question: str
    answer: str


def questions(
    scene: Scene,
    rng: random.Random,
    *,
    balanced: bool = True,
    kinds: Sequence[str] | None = None,
) -> list[Question]:
    """At most one question of every kind, or of `kinds`, that the scene allows, in random order.

    `balanced` leaves out some questions so that no answer of a form is more frequent than others.
    """
    found = []
    for kind in rng.sample(kinds or KINDS, len(kinds or KINDS)):
        form = rng.choice(_forms(kind))
        by_answer = _by_answer(form, scene)
        if not by_answer:
            continue
        answer = rng.choice(sorted(by_answer))
        if not balanced or rng.random() < form.keep.get(answer, 1.0):
            found.append(_ask(form, rng.choice(by_answer[answer]), rng))
    return found


def sample_question(
    rng: random.Random, kind: str, split: Split = "train"
) -> tuple[Scene, Question]:
    """A scene and a question of one kind; every answer of a form is equally likely."""
    if kind not in KINDS:
        raise ValueError(f"unknown question kind {kind!r}; expected one of {', '.join(KINDS)}")
    form = rng.choice(_forms(kind))
    answer = rng.choice(form.answers)
    while True:
        scene = sample_scene(rng, split)
        fitting = _by_answer(form, scene).get(answer)
        if fitting:
            return scene, _ask(form, rng.choice(fitting), rng)


def position_question(scene: Scene, rng: random.Random, *, a: str, b: str) -> Question:
    """How two objects stand to each other, named by `references` to their colors and shapes.

    Raises IndexError where no relation between them holds clearly.
    """
    form = rng.choice(_forms("position"))
    by_answer = {
        answer: pair
        for answer, fitting in _by_answer(form, scene).items()
        if (pair := [words for words in fitting if words["a"] == a and words["b"] == b])
    }
    return _ask(form, rng.choice(by_answer[rng.choice(sorted(by_answer))]), rng)


def describe(scene: Scene, rng: random.Random) -> Question:
    """A request to describe the picture and a full sentence that does."""
    return Question("description", rng.choice(DESCRIBE), description(scene, rng))


def _forms(kind: str) -> list[Form]:
    return [form for form in FORMS if form.kind == kind]


def _by_answer(form: Form, scene: Scene) -> dict[str, list[Words]]:
    fitting: dict[str, list[Words]] = {}
    for words, answer in form.candidates(scene):
        fitting.setdefault(answer, []).append(words)
    return fitting


def _ask(form: Form, words: Words, rng: random.Random) -> Question:
    """Put a candidate into words. The answer is kept under the key "answer"."""
    color = rng.choice(("color", "color", "colour"))
    place = rng.choice(("", "", " in the picture"))
    text = rng.choice(form.wordings).format(**words, color=color, place=place)
    noun = "object" if "shape" in text else rng.choice(("object", "shape"))
    return Question(form.kind, text.replace(NOUN, noun), words["answer"])
