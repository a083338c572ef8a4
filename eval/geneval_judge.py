"""One GenEval picture after the other: what the detector sees in it, and the verdict.

Judging is resumable per picture: each one has a record of its own below `parts/`, which becomes the
files of the whole run when all are there.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eval.detections import StoredDetections, detections_to_json, read_detections
from eval.detector import Detections, Detector
from eval.geneval_detectors import (
    ColorSource,
    base_options,
    default_colors,
    load_colors,
    load_detector,
)
from eval.geneval_results import ImageResult, Sample, image_result
from eval.geneval_rules import GenEvalOptions, evaluate_image, parse_options
from eval.processes import CountDone, Share, own_items, share_device
from unitok.files import read_json, write_json
from unitok.image import load_image


@dataclass(frozen=True)
class JudgeChoice:
    """Who judges, as a user says it: a detector to run or a file of detections, and options."""

    detector: str | None = None
    detections: Path | None = None
    colors: str | None = None  # None: as fits the detector
    options: tuple[str, ...] = ()  # official key=value
    device: str = "auto"

    def __post_init__(self) -> None:
        if (self.detector is None) == (self.detections is None):
            raise ValueError(
                "give either a detector to run (--detector) or a file of detections (--detections)"
            )

    def load(self, share: Share | None = None) -> "Judge":
        """The judge, on the device of its process."""
        device = share_device(self.device, share or Share())
        source: Detector | StoredDetections
        if self.detections is not None:
            source = read_detections(self.detections)
        else:
            source = load_detector(str(self.detector), device=device)
        options = parse_options(self.options, base=base_options(source.name))
        return Judge(source, self.colors or default_colors(source.name), options, device)


@dataclass
class Judge:
    """Judges pictures; what names colours is loaded when a prompt first asks for one."""

    source: Detector | StoredDetections
    colors_name: str
    options: GenEvalOptions
    device: str

    @cached_property
    def colors(self) -> ColorSource:
        return load_colors(self.colors_name, options=self.options, device=self.device)

    def describe(self, *, has_colors: bool) -> dict[str, Any]:
        """What a verdict depends on besides the picture, for JSON."""
        colors = self.colors if has_colors else None
        return {
            "detector": self.source.name,
            "detector_fingerprint": self.source.fingerprint,
            "colors": colors.name if colors else None,
            "colors_fingerprint": colors.fingerprint if colors else None,
            "options": asdict(self.options),
        }

    def judge(self, sample: Sample, key: str) -> tuple[Detections, ImageResult]:
        """What is seen in one picture, whose path below the image folder is `key`."""
        image = load_image(sample.path)
        try:
            found = self._detect(image, key)
            verdict = evaluate_image(
                sample.metadata,
                found,
                classify_colors=lambda *wanted: self.colors.classify(image, *wanted),
                options=self.options,
            )
        except ValueError as error:
            raise ValueError(f"{sample.path}: {error}") from error
        return found, image_result(sample, verdict)

    def _detect(self, image: Any, key: str) -> Detections:
        if not isinstance(self.source, StoredDetections):
            return self.source.detect(image)
        if key not in self.source.images:
            raise ValueError(
                "the file of detections lacks this picture; detect the whole folder again"
            )
        return self.source.images[key]


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
        judge = self.judge or self.choice.load(share)
        for sample in own:
            key = sample_key(sample, self.image_dir)
            found, result = judge.judge(sample, key)
            record = {"detections": detections_to_json(found), "result": asdict(result)}
            path = part_path(self.parts, key)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(record, path)
            count_done(1)


def asks_for_color(sample: Sample) -> bool:
    """Whether the verdict on a sample may need the colour of something."""
    return any(clause.color is not None for clause in sample.metadata.include)


def sample_key(sample: Sample, image_dir: Path) -> str:
    """The path of a picture below the image folder."""
    return sample.path.relative_to(image_dir).as_posix()


def part_path(parts: Path, key: str) -> Path:
    """Where the record of a picture lies."""
    return parts / f"{key}.json"


def read_part(parts: Path, key: str) -> tuple[dict[str, Any], ImageResult]:
    """The stored detections of a picture, still as JSON, and its result."""
    record = read_json(part_path(parts, key))
    return record["detections"], ImageResult(**record["result"])
