"""What GenEval asks of an object detector, and the names of the classes that it looks for.

Any detector will do for the rules. Scores of two detectors do not compare, so each one has a name
and a fingerprint, which stand beside every score.
"""

from typing import Protocol

from PIL import Image

from eval.geneval_rules import Detection

# COCO's 80 classes in the order of their labels, three of them renamed as GenEval's prompts do.
CLASS_NAMES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat"),
    *("dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack"),
    *("umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball"),
    *("kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket"),
    *("bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple"),
    *("sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair"),
    *("couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop"),
    *("computer mouse", "tv remote", "computer keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear"),
    *("hair drier", "toothbrush"),
)
COCO_NAMES = {"computer mouse": "mouse", "tv remote": "remote", "computer keyboard": "keyboard"}

Detections = dict[str, list[Detection]]  # class name -> what was found of it


class Detector(Protocol):
    """Finds objects in one image at a time."""

    @property
    def name(self) -> str:
        """Which detector this is, in words that tell it from the official one."""

    @property
    def fingerprint(self) -> str:
        """Hex digits that tell its weights from any others."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it can find."""

    def detect(self, image: Image.Image) -> Detections:
        """Every class found in the image as it is shown, masks of its (height, width) included."""


def coco_names() -> tuple[str, ...]:
    """The class names as COCO spells them, in the order of their labels."""
    return tuple(COCO_NAMES.get(name, name) for name in CLASS_NAMES)
