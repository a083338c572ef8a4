"""Drawn scenes as a GenEval benchmark: the inspector is the detector and names the colours.

So drawings of the embedded model are judged by the rules and the code that judge GenEval's photos.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval import inspector, scenes, shapes
from eval.detector import Detections
from eval.geneval_rules import (
    ColorClassifier,
    Detection,
    GenEvalOptions,
    Verdict,
    box_iou,
    evaluate_image,
    parse_metadata,
)
from eval.inspector import MIN_SCORE, InspectedObject, inspect
from eval.shapes import SHAPES

# The inspector's scores say how well a shape is drawn; GenEval's 0.9 for counting is a detector's.
SCENE_OPTIONS = GenEvalOptions(threshold=MIN_SCORE, counting_threshold=MIN_SCORE)
MIN_IOU = 0.5  # of a detection with the object that gives it its colour
INSPECTOR = "inspector"


class Inspector:
    """The inspector behind the interface of a detector."""

    name = INSPECTOR
    class_names = SHAPES

    @property
    def fingerprint(self) -> str:
        """Of the source files that its answers depend on."""
        modules = (inspector, scenes, shapes)
        sources = [Path(str(module.__file__)).read_bytes() for module in modules]
        return hashlib.sha256(b"".join(sources)).hexdigest()[:16]

    def detect(self, image: Image.Image) -> Detections:
        """The shapes in a square RGB picture."""
        return as_detections(inspect(np.asarray(image)))


class InspectorColors:
    """The inspector behind the interface of a colour classifier."""

    @property
    def name(self) -> str:
        return f"{INSPECTOR} {Inspector().fingerprint}"

    def classify(
        self, image: Image.Image, class_name: str, detections: Sequence[Detection]
    ) -> list[str]:
        """The colour of each detection in a square RGB picture."""
        return list(inspected_colors(inspect(np.asarray(image)))(class_name, detections))


def as_detections(found: Sequence[InspectedObject]) -> Detections:
    """Inspected objects as detections by class."""
    detections: Detections = {}
    for item in found:
        detections.setdefault(item.shape, []).append(Detection(item.box, item.score))
    return detections


def inspected_colors(found: Sequence[InspectedObject]) -> ColorClassifier:
    """Names a detection's colour by the inspected object in its place, one of its class first."""

    def classify(class_name: str, detections: Sequence[Detection]) -> list[str]:
        return [_color_at(found, class_name, detection) for detection in detections]

    return classify


def _color_at(found: Sequence[InspectedObject], class_name: str, detection: Detection) -> str:
    overlap, _, color = max(
        (
            (box_iou(item.box, detection.box), item.shape == class_name, item.color)
            for item in found
        ),
        default=(0.0, False, ""),
    )
    if overlap < MIN_IOU:
        raise ValueError(
            f"the inspector sees nothing at the {class_name} in box {detection.box}, so it cannot "
            "name its colour; let CLIP name the colours of what other detectors find"
        )
    return color


def judge_drawing(found: Sequence[InspectedObject], prompt: Mapping[str, Any]) -> Verdict:
    """GenEval's verdict on the objects found in a drawing of `prompt` (GenEval metadata)."""
    return evaluate_image(
        parse_metadata(prompt),
        as_detections(found),
        classify_colors=inspected_colors(found),
        options=SCENE_OPTIONS,
    )
