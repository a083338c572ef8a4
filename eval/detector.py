"""What GenEval asks of a detector: which objects are in a picture, and who says so."""

from typing import Protocol

from PIL import Image

from eval.geneval_rules import Detection

Detections = dict[str, list[Detection]]  # class name -> what was found of it


class Detector(Protocol):
    """Finds objects in pictures. Name and fingerprint stand beside every score."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def fingerprint(self) -> str:
        """Hex digits that tell it from any other."""

    def detect(self, image: Image.Image) -> Detections:
        """The objects in an RGB picture, by class name."""
