"""Detections as a JSON file: what a detector saw in the pictures of a folder.

    {"detector": NAME, "fingerprint": HEX, "images": {"00000/samples/0000.png": {"bench": OBJECTS}}}

OBJECTS holds `boxes` [x1, y1, x2, y2] and `scores` in the same order, and `masks` if there are any:
`size` (height, width) and run lengths, outside first, of the rows one after another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.detector import Detections
from eval.geneval_rules import Detection
from unitok.files import read_json


@dataclass(frozen=True)
class StoredDetections:
    """The content of a file; images by their paths below the folder."""

    name: str
    fingerprint: str
    images: Mapping[str, Detections]


def read_detections(path: Path) -> StoredDetections:
    """The detections in a file of ours or of any other detector; errors name the image."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of detections {path}")
    content = read_json(path)
    missing = {"detector", "fingerprint", "images"} - set(content)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; expected detections as JSON")
    images = {}
    for name, record in content["images"].items():
        try:
            images[name] = detections_from_json(record)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, {name}: {error!r} in its detections") from error
    return StoredDetections(content["detector"], content["fingerprint"], images)


def detections_to_json(found: Detections) -> dict[str, Any]:
    """The detections in one image as they stand in the file."""
    return {name: _objects_to_json(items) for name, items in found.items()}


def detections_from_json(record: Mapping[str, Any]) -> Detections:
    """The inverse of `detections_to_json`."""
    return {name: _objects_from_json(objects) for name, objects in record.items()}


def _objects_to_json(items: list[Detection]) -> dict[str, Any]:
    objects: dict[str, Any] = {
        "boxes": [list(item.box) for item in items],
        "scores": [item.score for item in items],
    }
    if any(item.mask is not None for item in items):
        objects["masks"] = [_run_lengths(item.mask) for item in items]
    return objects


def _objects_from_json(objects: Mapping[str, Any]) -> list[Detection]:
    masks = objects.get("masks") or [None] * len(objects["boxes"])
    return [
        Detection(tuple(box), score, mask=None if mask is None else _mask(mask))
        for box, score, mask in zip(objects["boxes"], objects["scores"], masks, strict=True)
    ]


def _run_lengths(mask: np.ndarray | None) -> dict[str, Any] | None:
    if mask is None:
        return None
    flat = np.concatenate([[False], mask.ravel(), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    return {"size": list(mask.shape), "runs": runs}


def _mask(record: Mapping[str, Any]) -> np.ndarray:
    height, width = record["size"]
    inside = np.arange(len(record["runs"])) % 2 == 1
    return np.repeat(inside, record["runs"]).reshape(height, width)
