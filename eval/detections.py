"""Files of detections, so that what any detector saw is scored by the same rules.

JSON lines. The first one names the detector:
    {"detector": "...", "fingerprint": "...", "classes": [...], "color_classifier": "..."}
Only `detector` is required; without classes they are GenEval's 80. Every other line is an image:
    {"image": "00000/samples/00000.png", "detections": {"dog": {"boxes": [[x1, y1, x2, y2]],
     "scores": [0.9], "masks": [{"size": [h, w], "counts": [...]}], "colors": ["red"]}}}
Masks and colors may be left out, and single colors be null. A class may also be rows of
[x1, y1, x2, y2, score], as mmdet gives them, and `detections` a list of such rows per class, in
the order of the classes.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from eval.detector import CLASS_NAMES, Detections
from eval.geneval_rules import ColorClassifier, Detection
from eval.run_lengths import decode_mask, encode_mask
from unitok.files import atomic_write, parse_json_object


@dataclass(frozen=True)
class DetectionHeader:
    """Which detector saw what follows, and who named the colours."""

    detector: str
    fingerprint: str = ""
    classes: tuple[str, ...] = CLASS_NAMES
    color_classifier: str = ""


@dataclass(frozen=True, eq=False)
class ImageDetections:
    """What was detected in one image. `colors` has an answer, or None, per detection of a class."""

    image: str  # path below the image folder, with forward slashes
    detections: Detections
    colors: dict[str, list[str | None]] = field(default_factory=dict)

    def answer_colors(self, classify: ColorClassifier | None = None) -> ColorClassifier:
        """A colour classifier that knows the stored answers, asks `classify` for others, and
        stores those. Without one a missing answer is a ValueError.
        """

        def answer(class_name: str, found: Sequence[Detection]) -> list[str]:
            candidates = self.detections[class_name]
            known = self.colors.setdefault(class_name, [None] * len(candidates))
            # By identity: two objects may have the same box and score, and different masks.
            places = [[id(other) for other in candidates].index(id(thing)) for thing in found]
            new = [place for place in places if known[place] is None]
            if new and classify is None:
                raise ValueError(
                    f"{self.image}: no colour is stored for a {class_name}; score with the images "
                    "at hand, so that CLIP can name it"
                )
            if new and classify is not None:
                answers = classify(class_name, [candidates[place] for place in new])
                for place, named in zip(new, answers, strict=True):
                    known[place] = named
            return [color for place in places if (color := known[place]) is not None]

        return answer


def header_text(header: DetectionHeader) -> str:
    """The first line of a file, with its end."""
    return json.dumps(asdict(header)) + "\n"


def image_text(image: ImageDetections) -> str:
    """An image's line, with its end."""
    detections = {
        class_name: _class_record(found, image.colors.get(class_name))
        for class_name, found in image.detections.items()
    }
    return json.dumps({"image": image.image, "detections": detections}) + "\n"


def write_detections(
    path: Path, header: DetectionHeader, images: Iterable[ImageDetections]
) -> None:
    """Write a file in one step."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(header_text(header))
        for image in images:
            file.write(image_text(image))


def _class_record(
    detections: Sequence[Detection], colors: Sequence[str | None] | None
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "boxes": [[_shortest(edge) for edge in detection.box] for detection in detections],
        "scores": [_shortest(detection.score) for detection in detections],
    }
    masks = [detection.mask for detection in detections if detection.mask is not None]
    if masks and len(masks) != len(detections):
        raise ValueError("either all detections of a class have a mask, or none")
    if masks:
        record["masks"] = [encode_mask(mask) for mask in masks]
    if colors is not None:
        record["colors"] = list(colors)
    return record


def _shortest(number: float) -> float:
    """The number with the fewest digits that rounds to the same float32."""
    return float(str(np.float32(number)))


class DetectionFile:
    """A file of detections. Images are read one at a time: masks of a whole run fill a memory."""

    def __init__(self, path: str | Path) -> None:
        """Read the header and find the images; raises ValueError naming the line at fault."""
        self._path = Path(path)
        if not self._path.is_file():
            raise FileNotFoundError(f"no detections at {path}; name a file of JSON lines")
        self._offsets: dict[str, int] = {}
        with self._path.open("rb") as file:
            self.header = _parse_header(parse_json_object(file.readline(), f"{path}, line 1"), path)
            offset = file.tell()
            for number, line in enumerate(file, start=2):
                if line.strip():
                    self._add(line, offset, place=f"{path}, line {number}")
                offset += len(line)

    def _add(self, line: bytes, offset: int, *, place: str) -> None:
        image = parse_json_object(line, place).get("image")
        if not isinstance(image, str):
            raise ValueError(f"{place}: image must be a path below the image folder, got {image!r}")
        if image in self._offsets:
            raise ValueError(f"{place}: {image} has a line already; keep one of them")
        self._offsets[image] = offset

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of all images, in the order of the file."""
        return tuple(self._offsets)

    def read(self, image: str) -> ImageDetections:
        """What was detected in an image; ValueError if it has no line or a wrong one."""
        place = f"{self._path}, {image}"
        if image not in self._offsets:
            raise ValueError(f"{place}: no line has this image; detect again, or remove the image")
        with self._path.open("rb") as file:
            file.seek(self._offsets[image])
            record = parse_json_object(file.readline(), place).get("detections")
        by_class = _by_class(record, self.header.classes, place)
        detections: Detections = {}
        colors: dict[str, list[str | None]] = {}
        for class_name, entry in by_class.items():
            class_place = f"{place}, {class_name}"
            columns = _columns(entry, class_place)
            detections[class_name] = _parse_detections(columns, class_place)
            if columns["colors"] is not None:
                colors[class_name] = list(columns["colors"])
        return ImageDetections(image, detections, colors)


def _parse_header(record: Mapping[str, Any], path: str | Path) -> DetectionHeader:
    fields = {key: record[key] for key in DetectionHeader.__dataclass_fields__ if key in record}
    classes = fields.pop("classes", list(CLASS_NAMES))
    names = [fields.get("detector"), *fields.values(), *classes]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f'{path}, line 1: expected the detector, as in {{"detector": "NAME"}}, with a list of '
            f"names as classes, got {str(dict(record))[:80]}"
        )
    return DetectionHeader(**fields, classes=tuple(classes))


def _by_class(record: object, classes: Sequence[str], place: str) -> dict[str, Any]:
    if isinstance(record, list) and len(record) == len(classes):
        return {name: rows for name, rows in zip(classes, record, strict=True) if rows}
    if not isinstance(record, dict):
        raise ValueError(
            f"{place}: detections must be an object of classes, or a list of "
            f"{len(classes)} classes, got {str(record)[:80]}"
        )
    if unknown := sorted(set(record) - set(classes)):
        raise ValueError(
            f"{place}: unknown class {unknown[0]!r}; expected those of the header, or GenEval's "
            "names, such as computer mouse"
        )
    return record


def _columns(entry: object, place: str) -> dict[str, list[Any] | None]:
    """Boxes, scores, masks and colors of a class, equally long; the last two may be None."""
    if isinstance(entry, list) and all(isinstance(row, list) for row in entry):
        entry = {"boxes": [row[:-1] for row in entry], "scores": [row[-1:] for row in entry]}
        entry["scores"] = [score[0] if score else None for score in entry["scores"]]
    if not isinstance(entry, dict):
        raise ValueError(
            f"{place}: expected boxes and scores, or rows of [x1, y1, x2, y2, score], "
            f"got {str(entry)[:80]}"
        )
    columns = {key: entry.get(key) for key in ("boxes", "scores", "masks", "colors")}
    lengths = {
        key: len(column) if isinstance(column, list) else 0
        for key, column in columns.items()
        if column is not None or key in ("boxes", "scores")
    }
    if len(set(lengths.values())) > 1 or not isinstance(columns["boxes"], list):
        raise ValueError(f"{place}: lists must be equally long, got {lengths}")
    return columns


def _parse_detections(columns: Mapping[str, list[Any] | None], place: str) -> list[Detection]:
    boxes, scores = columns["boxes"] or [], columns["scores"] or []
    masks = columns["masks"] or [None] * len(boxes)
    try:
        return [
            Detection(tuple(box), score, mask=None if runs is None else decode_mask(runs))
            for box, score, runs in zip(boxes, scores, masks, strict=True)
        ]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None
