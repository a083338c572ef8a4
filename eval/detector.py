"""What GenEval asks of a detector: which objects are in a picture, and who says so."""

from typing import Protocol

from PIL import Image

from eval.geneval_rules import Detection


class Detector(Protocol):
    """Finds objects in pictures. Name and fingerprint stand beside every score."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def fingerprint(self) -> str:
        """A short hash of what its detections depend on."""

    def detect(self, image: Image.Image) -> dict[str, list[Detection]]:
        """The objects in an RGB picture, by class name."""
