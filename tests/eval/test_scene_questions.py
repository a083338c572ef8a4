"""Questions have one right answer, checked by a second reader, and cannot be guessed blind."""

import random
import re
from collections import Counter, defaultdict

import pytest

from eval.geneval_rules import relative_position
from eval.scene_questions import KINDS, describe, questions, sample_question
from eval.scene_text import NUMBER_WORDS, plural
from eval.scenes import COLORS, HELD_OUT_COLOR_SHAPES, is_held_out, sample_scene
from eval.shapes import SHAPES

SIDES = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
YES = {True: "yes", False: "no"}


def fitting(scene, phrase):
    """Objects that fit every word of a phrase such as "small red stars" or "blue objects"."""
    found = list(scene.objects)
    for word in phrase.split():
        if word in ("object", "objects", "shape", "shapes"):
            continue
        found = [
            o for o in found if word in (o.size, o.color, o.shape, plural(o.shape))
        ]  # fmt: skip
    return found


def only(scene, phrase):
    """The one object that a phrase refers to."""
    (item,) = fitting(scene, phrase)
    return item


def _relations(scene, a, b):
    boxes = [tuple(256 * edge for edge in only(scene, phrase).box) for phrase in (a, b)]
    return relative_position(*boxes)


def _is_larger(scene, a, more, b):
    sizes = [only(scene, phrase).radius for phrase in (a, b)]
    assert abs(sizes[0] - sizes[1]) > 0.03
    return YES[(sizes[0] > sizes[1]) == (more == "larger")]


def _extreme(scene, more, a, b):
    ordered = sorted((only(scene, a), only(scene, b)), key=lambda o: o.radius)
    assert ordered[1].radius - ordered[0].radius > 0.03
    return ordered[1 if more == "larger" else 0].shape


def _more(scene, more, a, b):
    difference = len(fitting(scene, a)) - len(fitting(scene, b))
    return YES[difference > 0 if more == "more" else difference < 0]


def _same(scene, a, b, what):
    name = "shape" if what == "shape" else "color"
    return YES[getattr(only(scene, a), name) == getattr(only(scene, b), name)]


def _side(scene, a, b):
    (relation,) = _relations(scene, a, b)
    return relation.removesuffix(" of")


COLOR, P = "(?:color|colour)", r"([a-z ]+?)"
SEE = "(?:is there|does the picture show|can you see|do you see)"
# Wordings, most specific first, each with a function that computes the answer from its words.
READERS = [
    (rf"is the {P} left, right, above or below the {P}", _side),
    (rf"where is the {P}(?: relative to|, seen from) the {P}", _side),
    (rf"on which side of the {P} is the {P}", lambda s, b, a: _side(s, a, b)),
    (rf"(?:is|can you see|does the picture show) the {P} (?:to the )?"
     rf"(left of|right of|above|below) the {P}",
     lambda s, a, r, b: YES[r in _relations(s, a, b)]),
    (rf"is the {P} (larger|smaller) than the {P}", _is_larger),
    (rf"(?:which|what) is (larger|smaller), the {P} or the {P}", _extreme),
    (rf"are there (more|fewer) {P} than {P}", _more),
    (rf"do the {P} and the {P} have the same (\w+)", _same),
    (rf"are the {P} and the {P} the same (\w+)", _same),
    (rf"{SEE} an? {P}", lambda s, p: YES[bool(fitting(s, p))]),
    (rf"(?:how many|what is the number of) {P}(?: are there| do you see| does the picture show)?",
     lambda s, p: NUMBER_WORDS[len(fitting(s, p))]),
    (rf"(?:what|which) {COLOR} (?:is|does) the {P}(?: have)?", lambda s, p: only(s, p).color),
    (rf"what is the {COLOR} of the {P}", lambda s, p: only(s, p).color),
    (rf"(?:what|which) shape (?:is|does) the {P}(?: have)?", lambda s, p: only(s, p).shape),
    (rf"what is the (?:shape of the )?{P}", lambda s, p: only(s, p).shape),
]  # fmt: skip


def answer(scene, question):
    """The answer worked out from the question's words alone, by other code than the generator."""
    text = question.removesuffix("?").removesuffix(" in the picture")
    for pattern, read in READERS:
        match = re.fullmatch(pattern, text)
        if match:
            return read(scene, *match.groups())
    raise AssertionError(f"no reader for {question!r}")


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_every_answer_is_confirmed_by_an_independent_reader(split):
    rng = random.Random(1)
    asked = Counter()
    for _ in range(1500):
        scene = sample_scene(rng, split)
        for question in questions(scene, rng):
            assert answer(scene, question.question) == question.answer, (scene, question)
            asked[question.kind] += 1
    assert set(asked) == set(KINDS)
    assert min(asked.values()) > 200


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("kind", KINDS)
def test_sampled_questions_are_of_their_kind_and_right(kind, split):
    rng = random.Random(2)
    for _ in range(40):
        scene, question = sample_question(rng, kind, split)
        assert question.kind == kind
        assert answer(scene, question.question) == question.answer
        assert is_held_out(scene) == (split == "held_out")


def _answers_by_form(rng, *, num_scenes):
    """How often each answer is given, for questions that look alike but for names."""
    names = "|".join([*COLORS, *SHAPES, *map(plural, SHAPES), "small", "large", "objects?"])
    counts = defaultdict(Counter)
    for _ in range(num_scenes):
        for question in questions(sample_scene(rng), rng):
            form = re.sub(rf"\b({names})\b", "x", question.question)
            counts[question.kind, re.sub(r"(x )+x", "x", form)][question.answer] += 1
    return counts


def test_yes_and_no_are_equally_frequent_for_every_wording():
    counts = _answers_by_form(random.Random(3), num_scenes=3000)
    checked = 0
    for (_, form), answers in counts.items():
        if set(answers) <= {"yes", "no"} and answers.total() >= 150:
            checked += 1
            # Three standard deviations at 150 questions are 0.12.
            assert 0.36 < answers["yes"] / answers.total() < 0.64, (form, answers)
    assert checked >= 6


def test_no_answer_of_a_kind_can_be_guessed_from_the_kind():
    rng = random.Random(4)
    answers = defaultdict(Counter)
    for _ in range(3000):
        for question in questions(sample_scene(rng), rng):
            answers[question.kind][question.answer] += 1
    most = {kind: max(c.values()) / c.total() for kind, c in answers.items()}
    # Measured: existence 0.50, color 0.11, shape 0.14, count 0.24, position 0.25, comparison 0.42.
    limits = {"existence": 0.54, "color": 0.14, "shape": 0.17, "count": 0.32, "position": 0.32,
              "comparison": 0.52}  # fmt: skip
    assert all(most[kind] < limit for kind, limit in limits.items()), most
    assert set(answers["count"]) == set(NUMBER_WORDS)


@pytest.mark.parametrize("kind", ["existence", "count", "position", "comparison"])
def test_sampled_answers_are_uniform(kind):
    rng = random.Random(5)
    answers = Counter(sample_question(rng, kind)[1].answer for _ in range(400))
    if kind == "existence":
        assert 0.42 < answers["yes"] / 400 < 0.58
    if kind == "count":  # one to four uniform; zero is no answer to "how many objects"
        assert max(answers.values()) / 400 < 0.3
        assert min(answers.values()) / 400 > 0.09
    if kind == "position":
        assert max(answers.values()) / 400 < 0.36
    if kind == "comparison":
        assert abs(answers["yes"] - answers["no"]) / 400 < 0.12


def test_training_questions_name_no_held_out_pair():
    rng = random.Random(6)
    held_out = re.compile("|".join(f"{color} {shape}" for color, shape in HELD_OUT_COLOR_SHAPES))
    for _ in range(2000):
        for question in questions(sample_scene(rng), rng):
            assert not held_out.search(question.question)


def test_naming_a_held_out_pair_does_not_give_yes_away():
    rng = random.Random(7)
    held_out = re.compile(
        "|".join(f"an? {color} {shape}" for color, shape in HELD_OUT_COLOR_SHAPES)
    )
    answers = Counter(
        question.answer
        for _ in range(4000)
        for question in questions(sample_scene(rng, "held_out"), rng)
        if question.kind == "existence" and held_out.search(question.question)
    )
    assert 0.35 < answers["yes"] / answers.total() < 0.65, answers


def test_a_false_statement_is_close_to_the_truth():
    rng = random.Random(8)
    near = total = 0
    for _ in range(2000):
        scene = sample_scene(rng)
        colors, shapes = ({getattr(o, name) for o in scene.objects} for name in ("color", "shape"))
        for question in questions(scene, rng):
            match = re.search(rf"an? ({'|'.join(COLORS)}) ({'|'.join(SHAPES)})", question.question)
            if match and question.kind == "existence" and question.answer == "no":
                total += 1
                near += match[1] in colors or match[2] in shapes
    assert total > 100
    assert near == total


def test_descriptions_answer_a_request_for_one():
    question = describe(sample_scene(random.Random(9)), random.Random(9))
    assert question.kind == "description"
    assert question.answer.endswith("background.")


def test_an_unknown_kind_is_explained():
    with pytest.raises(ValueError, match="unknown question kind 'colour'; expected one of exist"):
        sample_question(random.Random(0), "colour")
