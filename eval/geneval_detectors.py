"""The detectors and colour classifiers that GenEval scoring can use, by name.

Models are imported where they are used: rules, reports and drawn scenes do without them.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from PIL import Image

from eval.detector import Detector
from eval.geneval_rules import OFFICIAL_OPTIONS, Detection, GenEvalOptions
from eval.scene_judge import INSPECTOR, SCENE_OPTIONS, Inspector, InspectorColors
from mllm.share import process_device

CLIP = "clip"


class ColorSource(Protocol):
    """Names the colours of detected objects."""

    @property
    def name(self) -> str:
        """What it is called, with the hash of its weights; stands beside every score."""

    def classify(
        self, image: Image.Image, class_name: str, detections: Sequence[Detection]
    ) -> list[str]:
        """One colour word for each detection in an RGB picture."""


def load_detector(name: str, *, device: str) -> Detector:
    """The inspector of drawn scenes, or a converted detector's folder or hub name."""
    if name == INSPECTOR:
        return Inspector()
    from eval.mask2former import Mask2FormerDetector

    return Mask2FormerDetector.from_pretrained(name, device=process_device(device))


@lru_cache(maxsize=1)
def load_colors(name: str, *, options: GenEvalOptions, device: str) -> ColorSource:
    """`inspector` for drawn scenes; `clip`, or a safetensors file of its weights, for others."""
    if name == INSPECTOR:
        return InspectorColors()
    from eval.clip_color import ClipColors

    return ClipColors.from_pretrained(
        None if name == CLIP else name, options=options, device=process_device(device)
    )


def default_colors(detector_name: str) -> str:
    """What names the colours of a detector's objects if the user does not say."""
    return INSPECTOR if detector_name == INSPECTOR else CLIP


def base_options(detector_name: str) -> GenEvalOptions:
    """The official options; the inspector's scores have a scale and a threshold of their own."""
    return SCENE_OPTIONS if detector_name == INSPECTOR else OFFICIAL_OPTIONS
