"""Who judges GenEval's pictures, and the verdict on one picture after the other.

Judging is resumable per picture: each one has a record of its own below `parts/`, which becomes the
files of the whole run when all are there.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from eval.detections import DetectionFile, DetectionHeader, ImageDetections, image_text
from eval.detector import Detector
from eval.geneval_detectors import (
    ColorSource,
    base_options,
    default_colors,
    load_colors,
    load_detector,
)
from eval.geneval_results import ImageResult, Sample, image_result
from eval.geneval_rules import ColorClassifier, GenEvalOptions, evaluate_image, parse_options
from eval.processes import CountDone, own_items
from mllm.share import Share
from unitok.files import atomic_write
from unitok.image import load_image

STORED = "stored"  # colours as the file of detections has them


@dataclass(frozen=True)
class JudgeChoice:
    """Who judges, as a user says it: a detector to run or a file of detections, and options."""

    detector: str | None = None
    detections: Path | None = None
    colors: str | None = None  # None: those stored with the detections, or as fits the detector
    options: tuple[str, ...] = ()  # official key=value
    device: str = "auto"

    def __post_init__(self) -> None:
        if (self.detector is None) == (self.detections is None):
            raise ValueError(
                "give either a detector to run (--detector) or a file of detections (--detections)"
            )
        if self.colors == STORED and self.detections is None:
            raise ValueError("only a file of detections (--detections) has stored colours")

    def load(self) -> "Judge":
        """The judge, on the device of its process."""
        source: Detector | DetectionFile
        if self.detections is not None:
            source = DetectionFile(self.detections)
            header = source.header
            colors = self.colors or (STORED if header.color_classifier else None)
        else:
            source = load_detector(str(self.detector), device=self.device)
            header = DetectionHeader(source.name, source.fingerprint, tuple(source.class_names))
            colors = self.colors
        options = parse_options(self.options, base=base_options(header.detector))
        return Judge(
            source,
            header,
            colors_name=colors or default_colors(header.detector),
            options=options,
            device=self.device,
        )


@dataclass
class Judge:
    """Judges pictures; what names colours is loaded when a prompt first asks for one."""

    source: Detector | DetectionFile
    header: DetectionHeader
    colors_name: str
    options: GenEvalOptions
    device: str

    @cached_property
    def colors(self) -> ColorSource | None:
        """None: only the stored answers count."""
        if self.colors_name == STORED:
            return None
        return load_colors(self.colors_name, options=self.options, device=self.device)

    def describe(self, *, has_colors: bool) -> dict[str, Any]:
        """What a verdict depends on besides the picture, for JSON."""
        colors = None
        if has_colors:
            colors = self.colors.name if self.colors else self.header.color_classifier or STORED
        return {
            "detector": self.header.detector,
            "detector_fingerprint": self.header.fingerprint or "unknown",
            "colors": colors,
            "options": asdict(self.options),
        }

    def judge(self, sample: Sample, key: str) -> tuple[ImageDetections, ImageResult]:
        """What is seen in one picture, whose path below the image folder is `key`."""
        image = load_image(sample.path)
        try:
            found = self._detect(image, key)
            verdict = evaluate_image(
                sample.metadata,
                found.detections,
                classify_colors=found.answer_colors(self._classifier(image)),
                options=self.options,
            )
        except ValueError as error:
            raise ValueError(f"{sample.path}: {error}") from error
        return found, image_result(sample, verdict)

    def _detect(self, image: Image.Image, key: str) -> ImageDetections:
        if not isinstance(self.source, DetectionFile):
            return ImageDetections(key, self.source.detect(image))
        found = self.source.read(key)
        # Answers of two colour classifiers are never mixed.
        return found if self.colors_name == STORED else ImageDetections(key, found.detections)

    def _classifier(self, image: Image.Image) -> ColorClassifier | None:
        if self.colors_name == STORED:
            return None

        def classify(class_name: str, detections: Sequence[Any]) -> Sequence[str]:
            assert self.colors is not None
            return self.colors.classify(image, class_name, detections)

        return classify


@dataclass(frozen=True)
class JudgingTask:
    """Judges the pictures that have no record yet."""

    image_dir: Path
    parts: Path
    samples: Sequence[Sample]
    choice: JudgeChoice
    judge: Judge | None  # None: to be loaded

    def run(self, share: Share, count_done: CountDone) -> None:
        """Judge this process's pictures."""
        own = own_items(self.samples, share)
        if not own:
            return
        judge = self.judge or self.choice.load()
        for sample in own:
            key = sample_key(sample, self.image_dir)
            write_part(*judge.judge(sample, key), path=part_path(self.parts, key))
            count_done(1)


def asks_for_color(sample: Sample) -> bool:
    """Whether the verdict on a sample may need the colour of something."""
    return any(clause.color is not None for clause in sample.metadata.include)


def sample_key(sample: Sample, image_dir: Path) -> str:
    """The path of a picture below the image folder."""
    return sample.path.relative_to(image_dir).as_posix()


def part_path(parts: Path, key: str) -> Path:
    """Where the record of a picture lies."""
    return parts / f"{key}.jsonl"


def write_part(found: ImageDetections, result: ImageResult, *, path: Path) -> None:
    """Store the record of a picture: its line of detections, then its line of results."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        temporary.write_text(f"{image_text(found)}{json.dumps(asdict(result))}\n", encoding="utf-8")


def read_part(path: Path) -> tuple[str, ImageResult]:
    """The line of detections of a picture, and its result."""
    detections, result = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return detections, ImageResult(**json.loads(result))
