"""Everything that GenEval scoring takes from detectors, their files and colour classifiers.

They are imported where they are used: rules, reports and drawn scenes need none of their libraries.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from eval.detector import Detector
from eval.geneval_rules import OFFICIAL_OPTIONS, Detection, GenEvalOptions
from eval.scene_judge import INSPECTOR, SCENE_OPTIONS, Inspector

CLIP = "clip"
COLOR_SOURCES = (CLIP, INSPECTOR)


class ColorSource(Protocol):
    """Names the colours of detected objects. Name and fingerprint stand beside every score."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def fingerprint(self) -> str:
        """Hex digits that tell it from any other."""

    def classify(
        self, image: Image.Image, class_name: str, detections: Sequence[Detection]
    ) -> list[str]:
        """One colour word for each detection in an RGB picture."""


def load_detector(name: str, *, device: str = "auto") -> Detector:
    """The inspector of drawn scenes, or a converted detector's folder or hub name."""
    if name == INSPECTOR:
        return Inspector()
    from eval.mask2former import Mask2FormerDetector

    return Mask2FormerDetector.from_pretrained(name, device=device)


def load_colors(name: str, *, options: GenEvalOptions, device: str = "auto") -> ColorSource:
    """What names the colours: `inspector` for drawn scenes, `clip` for everything else."""
    if name not in COLOR_SOURCES:
        raise ValueError(f"colors must be {' or '.join(COLOR_SOURCES)}, got {name!r}")
    if name == INSPECTOR:
        return Inspector()
    from eval.geneval_color import ClipColors

    return ClipColors.load(options=options, device=device)


def default_colors(detector_name: str) -> str:
    """What names the colours of a detector's objects if the user does not say."""
    return INSPECTOR if detector_name == INSPECTOR else CLIP


def base_options(detector_name: str) -> GenEvalOptions:
    """The official options; the inspector's scores have a scale and a threshold of their own."""
    return SCENE_OPTIONS if detector_name == INSPECTOR else OFFICIAL_OPTIONS


def convert_detector_file(checkpoint: Path, folder: Path, *, force: bool = False) -> None:
    """Convert the official checkpoint into a folder that `load_detector` takes."""
    from eval.detector_convert import convert_detector

    convert_detector(checkpoint, folder, force=force)
