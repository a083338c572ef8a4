"""GenEval's rules: which detections count, whether an image satisfies its prompt, and the scores.

Everything here is independent of the detector and of the colour classifier. A detector supplies
`Detection`s per class, a callable names the colours of some of them, `evaluate_image` decides and
`summarize` adds up. The defaults reproduce the official scorer (djghosh13/geneval, af4902f)
digit by digit, so arithmetic is float32 where the official arrays are.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from PIL import ImageColor

# The order breaks ties between colours and sorts them in a verdict's reason.
COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
COUNTING_TAG = "counting"
KEEP_BACKGROUND = "original"

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One detected object: box (x1, y1, x2, y2) in pixels, score, and a mask (h, w) of bools.

    Box and score are rounded to float32, the precision in which the official detector emits them.
    """

    box: Box
    score: float
    mask: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        numbers = np.array([*self.box, self.score], dtype=np.float32)
        if len(self.box) != 4 or not np.isfinite(numbers).all():
            raise ValueError(
                f"a detection needs a box of 4 finite numbers and a finite score, "
                f"got box {self.box} and score {self.score}; check the detector's precision"
            )
        object.__setattr__(self, "box", tuple(numbers[:4].tolist()))
        object.__setattr__(self, "score", float(numbers[4]))


# Called with a class name and some of its detections; returns one colour word for each.
ColorClassifier = Callable[[str, Sequence[Detection]], Sequence[str]]


@dataclass(frozen=True)
class GenEvalOptions:
    """The official `key=value` options, with the official defaults."""

    threshold: float = 0.3  # lowest score, exclusive, except in counting prompts
    counting_threshold: float = 0.9
    max_objects: int = 16  # per class
    max_overlap: float = 1.0  # non-maximum suppression above this IoU; exactly 1 switches it off
    position_threshold: float = 0.1  # dead zone as a share of the two boxes' sides
    bgcolor: str = "#999"  # paints what lies outside a mask; "original" keeps the picture
    crop: bool = True  # cut the box out before naming its colour
    clip_model: str = "ViT-L-14"

    def __post_init__(self):
        for name in ("threshold", "counting_threshold", "max_overlap", "position_threshold"):
            if math.isnan(getattr(self, name)):
                raise ValueError(f"GenEval option {name} must be a number, got nan")
        if self.max_objects < 0:
            raise ValueError(f"GenEval option max_objects must be >= 0, got {self.max_objects}")
        if self.bgcolor != KEEP_BACKGROUND:
            _check_color(self.bgcolor)


def _check_color(text: str) -> None:
    try:
        ImageColor.getrgb(text)
    except ValueError:
        raise ValueError(
            f"GenEval option bgcolor must be a colour such as #999, or {KEEP_BACKGROUND}, "
            f"got {text!r}"
        ) from None


_OPTION_PARSERS: dict[str, Callable[[str], Any]] = {
    "threshold": float,
    "counting_threshold": float,
    "max_objects": int,
    "max_overlap": float,
    "position_threshold": float,
    "bgcolor": str,
    "crop": lambda text: text == "1",
    "clip_model": str,
}
OFFICIAL_OPTIONS = GenEvalOptions()


def parse_options(
    pairs: Iterable[str], *, base: GenEvalOptions = OFFICIAL_OPTIONS
) -> GenEvalOptions:
    """`base` changed by official `key=value` strings; the last of several equal keys wins."""
    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        # Differs from the official scorer: it ignores a key it does not know.
        if not equals or key not in _OPTION_PARSERS:
            known = ", ".join(option.name for option in fields(GenEvalOptions))
            raise ValueError(f"unknown GenEval option {pair!r}; expected key=value, keys: {known}")
        try:
            values[key] = _OPTION_PARSERS[key](text)
        except ValueError:
            kind = _OPTION_PARSERS[key].__name__
            raise ValueError(f"GenEval option {key} must be of type {kind}, got {text!r}") from None
    return replace(base, **values)


@dataclass(frozen=True)
class Clause:
    """`count` objects of a class, optionally of a colour or standing in a relation.

    `reference` is the place in `include` of the clause whose objects the relation refers to.
    """

    class_name: str
    count: int
    color: str | None = None
    relation: str | None = None
    reference: int | None = None


@dataclass(frozen=True)
class PromptMetadata:
    """What a prompt demands: every `include` clause, and no `exclude` clause reached."""

    tag: str
    prompt: str
    include: tuple[Clause, ...] = ()
    exclude: tuple[Clause, ...] = ()


def parse_metadata(record: Mapping[str, Any], source: str = "metadata") -> PromptMetadata:
    """One line of the official prompt file; `source` names it in errors."""
    if not isinstance(record, Mapping) or not {"tag", "prompt"} <= record.keys():
        raise ValueError(f"{source}: expected an object with tag and prompt, got {record!r}")
    include, exclude = (
        tuple(
            _parse_clause(clause, place, source=f"{source}, {key}[{place}]")
            for place, clause in enumerate(_clause_list(record, key, source=source))
        )
        for key in ("include", "exclude")
    )
    return PromptMetadata(record["tag"], record["prompt"], include=include, exclude=exclude)


def _clause_list(record: Mapping[str, Any], key: str, *, source: str) -> list[Any]:
    clauses = record.get(key, [])
    if not isinstance(clauses, list):
        raise ValueError(f"{source}: {key} must be a list of clauses, got {clauses!r}")
    return clauses


def _parse_clause(clause: Mapping[str, Any], place: int, *, source: str) -> Clause:
    if not isinstance(clause, Mapping) or not {"class", "count"} <= clause.keys():
        raise ValueError(f"{source}: expected an object with class and count, got {clause!r}")
    count, color = clause["count"], clause.get("color")
    least = 0 if color is None else 1  # no object, no colour to look at
    if type(count) is not int or count < least:
        raise ValueError(f"{source}: count must be a whole number >= {least}, got {count!r}")
    if not isinstance(clause["class"], str):
        raise ValueError(f"{source}: class must be a name, got {clause['class']!r}")
    if "position" not in clause:
        return Clause(clause["class"], count, color=color)
    match clause["position"]:
        # Negative places count back from this clause, as they do officially.
        case [str(relation), int(reference)] if -place <= reference < place:
            return Clause(
                clause["class"],
                count,
                color=color,
                relation=relation,
                reference=reference % place,
            )
    raise ValueError(
        f"{source}: position must be [relation, index of an earlier include clause], "
        f"got {clause['position']!r}"
    )


def box_iou(box_a: Box, box_b: Box) -> float:
    """Intersection over union of boxes whose right and bottom edges are inclusive."""
    a, b = np.array([box_a, box_b], dtype=np.float32)
    intersection = _pixel_area(np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:]))
    union = _pixel_area(a[:2], a[2:]) + _pixel_area(b[:2], b[2:]) - intersection
    return intersection / union if union else 0.0


def _pixel_area(low: np.ndarray, high: np.ndarray) -> float:
    # The official numpy 1.23 widens a float32 scalar that meets a Python number to float64.
    width, height = (high - low).astype(np.float64) + 1
    return max(float(width), 0.0) * max(float(height), 0.0)


def keep_detections(
    detections: Sequence[Detection], threshold: float, *, options: GenEvalOptions
) -> tuple[Detection, ...]:
    """The detections of one class that count, best first."""
    scores = np.array([detection.score for detection in detections], dtype=np.float32)
    # Reversing a stable ascending sort puts the later of equal scores first, as official
    # runs do on small arrays.
    order = np.argsort(scores, kind="stable")[::-1]
    above = scores > np.float32(threshold)
    ranked = [detections[index] for index in order if above[index]][: options.max_objects]
    if options.max_overlap == 1:
        return tuple(ranked)
    kept: list[Detection] = []
    for candidate in ranked:
        if all(box_iou(better.box, candidate.box) < options.max_overlap for better in kept):
            kept.append(candidate)
    return tuple(kept)


def relative_position(
    box_a: Box,
    box_b: Box,
    *,
    position_threshold: float = OFFICIAL_OPTIONS.position_threshold,
) -> frozenset[str]:
    """How A lies relative to B: none, one or two of left of, right of, above, below."""
    corners = np.array([box_a, box_b], dtype=np.float32).reshape(2, 2, 2)  # (object, corner, axis)
    center_a, center_b = corners.mean(axis=1)
    offset = center_a - center_b
    sides = np.abs(corners[:, 1] - corners[:, 0]).sum(axis=0)
    beyond = np.maximum(np.abs(offset) - position_threshold * sides, 0) * np.sign(offset)
    if (np.abs(beyond) < 1e-3).all():
        return frozenset()
    # Official: the direction divides by the length of the offset before the dead zone was taken.
    dx, dy = beyond / np.linalg.norm(offset)
    holds = {"left of": dx < -0.5, "right of": dx > 0.5, "above": dy < -0.5, "below": dy > 0.5}
    return frozenset(name for name, is_true in holds.items() if is_true)


@dataclass(frozen=True)
class Verdict:
    """`reason` has a line per failed clause; `kept` the detections that counted, by class."""

    correct: bool
    reason: str
    kept: dict[str, tuple[Detection, ...]]


def evaluate_image(
    metadata: PromptMetadata,
    detections: Mapping[str, Sequence[Detection]],
    *,
    classify_colors: ColorClassifier,
    options: GenEvalOptions = OFFICIAL_OPTIONS,
) -> Verdict:
    """Decide whether the detections in one image satisfy its prompt.

    `classify_colors` is called only for clauses with a colour, once each, with the best `count`
    detections of the class. A confident object of the wrong colour or in the wrong place is not
    made good by a less confident one.
    """
    is_counting = metadata.tag == COUNTING_TAG
    threshold = options.counting_threshold if is_counting else options.threshold
    kept = {
        class_name: survivors
        for class_name, candidates in detections.items()
        if (survivors := keep_detections(candidates, threshold, options=options))
    }
    reasons: list[str] = []
    matches: list[tuple[Detection, ...] | None] = []
    for clause in metadata.include:
        found = kept.get(clause.class_name, ())[: clause.count]
        reason = (
            _count_fault(clause, found)
            or _color_fault(clause, found, classify_colors=classify_colors)
            or _position_fault(clause, found, matches=matches, options=options)
        )
        matches.append(None if reason else found)
        reasons.append(reason)
    reasons += [
        _excess_fault(clause, kept.get(clause.class_name, ())) for clause in metadata.exclude
    ]
    faults = [reason for reason in reasons if reason]
    return Verdict(not faults, "\n".join(faults), kept)


def _count_fault(clause: Clause, found: Sequence[Detection]) -> str:
    if len(found) >= clause.count:
        return ""
    return f"expected {clause.class_name}>={clause.count}, found {len(found)}"


def _excess_fault(clause: Clause, found: Sequence[Detection]) -> str:
    if len(found) < clause.count:
        return ""
    return f"expected {clause.class_name}<{clause.count}, found {len(found)}"


def _color_fault(
    clause: Clause, found: Sequence[Detection], *, classify_colors: ColorClassifier
) -> str:
    if clause.color is None:
        return ""
    colors = list(classify_colors(clause.class_name, found))
    if len(colors) != len(found):
        raise ValueError(
            f"the colour classifier must name one colour per {clause.class_name}, "
            f"got {len(colors)} for {len(found)}"
        )
    num_right = colors.count(clause.color)
    if num_right >= clause.count:
        return ""
    # A classifier of ours may know words beyond the official ten; they come last.
    seen = [color for color in (*COLORS, *sorted({*colors} - {*COLORS})) if color in colors]
    return (
        f"expected {clause.color} {clause.class_name}>={clause.count}, "
        f"found {num_right} {clause.color}; "
        f"and {', '.join(f'{colors.count(color)} {color}' for color in seen)}"
    )


def _position_fault(
    clause: Clause,
    found: Sequence[Detection],
    *,
    matches: Sequence[Sequence[Detection] | None],
    options: GenEvalOptions,
) -> str:
    if clause.relation is None or clause.reference is None:
        return ""
    targets = matches[clause.reference]
    if targets is None:
        return f"no target for {clause.class_name} to be {clause.relation}"
    for thing in found:
        for target in targets:
            relations = relative_position(
                thing.box, target.box, position_threshold=options.position_threshold
            )
            if clause.relation not in relations:
                # Officially two names come in no fixed order; sorting them makes runs comparable.
                return (
                    f"expected {clause.class_name} {clause.relation} target, "
                    f"found {' and '.join(sorted(relations))} target"
                )
    return ""
