"""The forms of questions about drawn scenes: what can be asked, and how it is worded.

A form has wordings, the answers it can have, and a function that lists what could be asked about a
scene, each with its answer. Objects are named by attributes that fit no other one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, permutations, product

from eval.scene_text import NUMBER_WORDS, RELATION_WORDS, counted, plural
from eval.scenes import COLORS, Scene, SceneObject, clear_relation, is_held_out, is_held_out_pair
from eval.shapes import SHAPES

YES_NO = ("yes", "no")
SIDES = ("left", "right", "above", "below")
HELD_OUT_REPEATS = 16  # makes a denied held-out pair about as frequent as a present one
Words = Mapping[str, str]
Candidate = tuple[Words, str]  # what fills the wording, and the answer


@dataclass(frozen=True)
class Form:
    """One way of asking. `keep` thins answers that scenes offer more often than the others."""

    kind: str
    wordings: tuple[str, ...]
    answers: tuple[str, ...]
    candidates: Callable[[Scene], Iterator[Candidate]]
    keep: Mapping[str, float] = field(default_factory=dict)


# ---- naming objects ------------------------------------------------------------------------------
NOUN = "<noun>"  # stands for "object" or "shape" where a reference leaves the shape open


def references(scene: Scene, item: SceneObject, using: Sequence[str]) -> list[str]:
    """Every phrase from these attributes that fits this object and no other."""
    phrases = []
    for length in range(1, len(using) + 1):
        for attributes in combinations(using, length):
            look = [getattr(item, name) for name in attributes]
            same = [o for o in scene.objects if [getattr(o, name) for name in attributes] == look]
            if len(same) == 1:
                noun = [] if "shape" in attributes else [NOUN]
                phrases.append(" ".join(look + noun))
    return phrases


def _pairs(scene: Scene, using: Sequence[str]) -> Iterator[tuple[SceneObject, SceneObject, Words]]:
    """Ordered pairs of objects with every way to name both."""
    for a, b in permutations(scene.objects, 2):
        for name_a, name_b in product(references(scene, a, using), references(scene, b, using)):
            yield a, b, {"a": name_a, "b": name_b}


def _answered(words: Words, answer: str) -> Candidate:
    return {**words, "answer": answer}, answer


def _yes_no(words: Words, truth: bool) -> Candidate:
    return _answered(words, "yes" if truth else "no")


# ---- what can be asked ---------------------------------------------------------------------------


def _absent_looks(scene: Scene) -> list[tuple[str, str]]:
    """Absent (colour, shape) looks that differ from some object in one attribute only.

    Looks that combine a colour and a shape of the scene are listed several times, since they are
    the hardest to deny. Training scenes never name a held-out pair; in held-out scenes such pairs
    are listed more often, so that naming one does not give "yes" away.
    """
    colors, shapes = ({getattr(o, name) for o in scene.objects} for name in ("color", "shape"))
    present = {(o.color, o.shape) for o in scene.objects}
    held_out = is_held_out(scene)
    looks = []
    for color, shape in product(COLORS, SHAPES):
        known = (color in colors) + (shape in shapes)
        rare = is_held_out_pair(color, shape)
        if known and (color, shape) not in present and (held_out or not rare):
            repeats = (6 if known == 2 else 1) * (HELD_OUT_REPEATS if rare else 1)
            looks += [(color, shape)] * repeats
    return looks


def _color_shape_exists(scene: Scene) -> Iterator[Candidate]:
    for item in scene.objects:
        yield _yes_no({"what": counted(1, f"{item.color} {item.shape}")}, True)
    for color, shape in _absent_looks(scene):
        yield _yes_no({"what": counted(1, f"{color} {shape}")}, False)


def _shape_exists(scene: Scene) -> Iterator[Candidate]:
    present = {item.shape for item in scene.objects}
    for shape in SHAPES:
        yield _yes_no({"what": counted(1, shape)}, shape in present)


def _color_exists(scene: Scene) -> Iterator[Candidate]:
    present = {item.color for item in scene.objects}
    for color in COLORS:
        yield _yes_no({"what": f"{counted(1, color)} {NOUN}"}, color in present)


def _size_shape_exists(scene: Scene) -> Iterator[Candidate]:
    present = {(item.size, item.shape) for item in scene.objects}
    for size, shape in product(("small", "large"), sorted({shape for _, shape in present})):
        yield _yes_no({"what": counted(1, f"{size} {shape}")}, (size, shape) in present)


def _color_of(scene: Scene) -> Iterator[Candidate]:
    for item in scene.objects:
        for name in references(scene, item, ("size", "shape")):
            yield _answered({"a": name}, item.color)


def _shape_of(scene: Scene) -> Iterator[Candidate]:
    for item in scene.objects:
        for name in references(scene, item, ("size", "color")):
            yield _answered({"a": name}, item.shape)


def _count_all(scene: Scene) -> Iterator[Candidate]:
    yield _answered({"what": f"{NOUN}s"}, NUMBER_WORDS[len(scene.objects)])


def _count_shape(scene: Scene) -> Iterator[Candidate]:
    counts = Counter(item.shape for item in scene.objects)
    for shape in SHAPES:
        yield _answered({"what": plural(shape)}, NUMBER_WORDS[counts[shape]])


def _count_color(scene: Scene) -> Iterator[Candidate]:
    counts = Counter(item.color for item in scene.objects)
    for color in COLORS:
        yield _answered({"what": f"{color} {NOUN}s"}, NUMBER_WORDS[counts[color]])


def _count_color_shape(scene: Scene) -> Iterator[Candidate]:
    for (color, shape), count in Counter((o.color, o.shape) for o in scene.objects).items():
        yield _answered({"what": f"{color} {plural(shape)}"}, NUMBER_WORDS[count])
    for color, shape in _absent_looks(scene):
        yield _answered({"what": f"{color} {plural(shape)}"}, "zero")


def _side(scene: Scene) -> Iterator[Candidate]:
    for a, b, words in _pairs(scene, ("color", "shape")):
        relation = clear_relation(a, b)
        if relation:
            yield _answered(words, relation.removesuffix(" of"))


def _is_on_side(scene: Scene) -> Iterator[Candidate]:
    for a, b, words in _pairs(scene, ("color", "shape")):
        relation = clear_relation(a, b)
        for claimed in RELATION_WORDS if relation else ():
            for phrase in RELATION_WORDS[claimed]:
                yield _yes_no({**words, "relation": phrase}, claimed == relation)


def _larger_of(scene: Scene) -> Iterator[Candidate]:
    for a, b, words in _pairs(scene, ("color", "shape")):
        both_shapes = a.shape in words["a"].split() and b.shape in words["b"].split()
        if both_shapes and a.shape != b.shape and a.size != b.size:
            larger, smaller = (a, b) if a.size == "large" else (b, a)
            yield _answered({**words, "more": "larger"}, larger.shape)
            yield _answered({**words, "more": "smaller"}, smaller.shape)


def _is_larger(scene: Scene) -> Iterator[Candidate]:
    for a, b, words in _pairs(scene, ("color", "shape")):
        if a.size != b.size:
            yield _yes_no({**words, "more": "larger"}, a.size == "large")
            yield _yes_no({**words, "more": "smaller"}, a.size == "small")


def _more(scene: Scene) -> Iterator[Candidate]:
    counts = Counter(item.shape for item in scene.objects)
    for a, b in permutations(counts, 2):
        words = {"a": plural(a), "b": plural(b)}
        yield _yes_no({**words, "more": "more"}, counts[a] > counts[b])
        yield _yes_no({**words, "more": "fewer"}, counts[a] < counts[b])


def _same_color(scene: Scene) -> Iterator[Candidate]:
    for a, b, words in _pairs(scene, ("size", "shape")):
        yield _yes_no(words, a.color == b.color)


def _same_shape(scene: Scene) -> Iterator[Candidate]:
    for a, b, words in _pairs(scene, ("size", "color")):
        yield _yes_no(words, a.shape == b.shape)


# ---- the forms -----------------------------------------------------------------------------------

_EXISTS = (
    "is there {what}{place}?", "does the picture show {what}?", "can you see {what}{place}?",
    "do you see {what}{place}?",
)  # fmt: skip
_HOW_MANY = (
    "how many {what} are there{place}?", "how many {what} do you see{place}?",
    "how many {what} does the picture show?", "what is the number of {what}{place}?",
)  # fmt: skip

# `keep` makes up for how often random scenes offer an answer; measured over 10,000 scenes.
FORMS = (
    Form("existence", _EXISTS, YES_NO, _color_shape_exists),
    Form("existence", _EXISTS, YES_NO, _shape_exists),
    Form("existence", _EXISTS, YES_NO, _color_exists),
    Form("existence", _EXISTS, YES_NO, _size_shape_exists, {"yes": 0.65}),
    Form(
        "color",
        ("what {color} is the {a}?", "which {color} does the {a} have?",
         "which {color} is the {a}?", "what is the {color} of the {a}?"),
        COLORS,
        _color_of,
    ),
    Form(
        "shape",
        ("what shape is the {a}?", "which shape does the {a} have?", "what is the {a}?",
         "what is the shape of the {a}?"),
        SHAPES,
        _shape_of,
    ),
    Form("count", _HOW_MANY, NUMBER_WORDS[1:], _count_all),
    Form("count", _HOW_MANY, NUMBER_WORDS, _count_shape, {"zero": 0.13, "one": 0.2, "two": 0.6}),
    Form("count", _HOW_MANY, NUMBER_WORDS, _count_color, {"zero": 0.08, "one": 0.1, "two": 0.35}),
    Form(
        "count", _HOW_MANY, NUMBER_WORDS, _count_color_shape,
        {"zero": 0.06, "one": 0.07, "two": 0.4},
    ),
    Form(
        "position",
        ("where is the {a} relative to the {b}?", "on which side of the {b} is the {a}?",
         "where is the {a}, seen from the {b}?",
         "is the {a} left, right, above or below the {b}?"),
        SIDES,
        _side,
    ),
    Form(
        "position",
        ("is the {a} {relation} the {b}?", "can you see the {a} {relation} the {b}?",
         "does the picture show the {a} {relation} the {b}?"),
        YES_NO,
        _is_on_side,
    ),
    Form(
        "comparison",
        ("which is {more}, the {a} or the {b}?", "what is {more}, the {a} or the {b}?"),
        SHAPES,
        _larger_of,
    ),
    Form("comparison", ("is the {a} {more} than the {b}?",), YES_NO, _is_larger),
    Form("comparison", ("are there {more} {a} than {b}{place}?",), YES_NO, _more, {"no": 0.31}),
    Form(
        "comparison",
        ("do the {a} and the {b} have the same {color}?",
         "are the {a} and the {b} the same {color}?"),
        YES_NO,
        _same_color,
        {"no": 0.59},
    ),
    Form("comparison", ("do the {a} and the {b} have the same shape?",), YES_NO, _same_shape),
)  # fmt: skip
KINDS = tuple(dict.fromkeys(form.kind for form in FORMS))
