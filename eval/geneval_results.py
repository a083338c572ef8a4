"""GenEval's files and scores: find the images, write result lines, add them up."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.geneval_rules import PromptMetadata, Verdict, parse_metadata

METADATA_FILE = "metadata.jsonl"  # in the folder of a prompt
_SAMPLE_NAME = re.compile(r"\d+\.png")


@dataclass(frozen=True)
class Sample:
    """One generated image and the prompt it answers."""

    path: Path
    metadata: PromptMetadata
    metadata_json: str  # distinguishes prompts in the summary, with every key of the file


def is_sample_path(path: str) -> bool:
    """Whether a path below the image folder is evaluated: `<digits>/samples/<digits>.png`.

    As officially, anything may follow `.png`, and the number of digits is free.
    """
    parts = path.split("/")
    if len(parts) != 3:
        return False
    folder, middle, name = parts
    return folder.isdigit() and middle == "samples" and _SAMPLE_NAME.match(name) is not None


@dataclass(frozen=True)
class PromptFolder:
    """The folder of one prompt and the images in it that GenEval evaluates, in order."""

    path: Path
    metadata: PromptMetadata
    metadata_json: str
    images: tuple[Path, ...]


def find_folders(image_dir: Path) -> list[PromptFolder]:
    """The folders of all prompts below `image_dir`, in the order of their names."""
    if not image_dir.is_dir():
        raise FileNotFoundError(f"GenEval image folder {image_dir} does not exist")
    folders = []
    for path in sorted(image_dir.iterdir()):
        if not (path.is_dir() and path.name.isdigit()):
            continue
        metadata, metadata_json = _read_metadata(path / METADATA_FILE)
        if not (path / "samples").is_dir():
            raise FileNotFoundError(f"{path} has no samples folder with the generated images")
        images = tuple(
            image
            for image in sorted((path / "samples").iterdir())
            if image.is_file() and is_sample_path(image.relative_to(image_dir).as_posix())
        )
        folders.append(PromptFolder(path, metadata, metadata_json, images))
    return folders


def find_samples(image_dir: Path) -> list[Sample]:
    """Every image below `image_dir` that GenEval evaluates, in the order of their paths."""
    samples = [
        Sample(image, folder.metadata, folder.metadata_json)
        for folder in find_folders(image_dir)
        for image in folder.images
    ]
    if not samples:
        raise ValueError(
            f"no image to evaluate in {image_dir}; expected <digits>/samples/<digits>.png"
        )
    return samples


def _read_metadata(path: Path) -> tuple[PromptMetadata, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; it holds the prompt of its folder")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: expected one line of JSON ({error})") from None
    return parse_metadata(record, source=str(path)), json.dumps(record)


@dataclass(frozen=True)
class ImageResult:
    """One line of the official results file, field by field (`dataclasses.asdict` writes it)."""

    filename: str
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str  # JSON text
    details: str  # JSON text: class -> kept [x1, y1, x2, y2, score]


def image_result(sample: Sample, verdict: Verdict) -> ImageResult:
    """The result line of one sample."""
    details = {
        class_name: [[*detection.box, detection.score] for detection in detections]
        for class_name, detections in verdict.kept.items()
    }
    return ImageResult(
        filename=str(sample.path),
        tag=sample.metadata.tag,
        prompt=sample.metadata.prompt,
        correct=verdict.correct,
        reason=verdict.reason,
        metadata=sample.metadata_json,
        details=json.dumps(details),
    )


@dataclass(frozen=True)
class TaskScore:
    """How many images of one tag are correct."""

    tag: str
    num_correct: int
    num_images: int

    @property
    def score(self) -> float:
        """Share of correct images, 0..1."""
        return self.num_correct / self.num_images


@dataclass(frozen=True)
class Summary:
    """Scores of a run. `tasks` come in the order in which their tags first appear.

    `overall` weighs every task alike, however many images it has. `num_correct_prompts` counts
    prompts with at least one correct image and is no part of it.
    """

    tasks: tuple[TaskScore, ...]
    num_prompts: int
    num_correct_prompts: int

    @property
    def num_images(self) -> int:
        """Images of all tasks."""
        return sum(task.num_images for task in self.tasks)

    @property
    def overall(self) -> float:
        """GenEval's headline number, 0..1."""
        return float(np.mean([task.score for task in self.tasks]))

    def report(self) -> dict[str, object]:
        """The numbers as the official summary prints them."""
        num_correct = sum(task.num_correct for task in self.tasks)
        return {
            "total_images": self.num_images,
            "total_prompts": self.num_prompts,
            "pct_correct_images": f"{num_correct / self.num_images:.2%}",
            "pct_correct_prompts": f"{self.num_correct_prompts / self.num_prompts:.2%}",
            "tasks_in_order": [
                {
                    "tag": task.tag,
                    "pct": f"{task.score:.2%}",
                    "correct": task.num_correct,
                    "total": task.num_images,
                }
                for task in self.tasks
            ],
            "overall": f"{self.overall:.5f}",
        }


def summarize(results: Iterable[ImageResult]) -> Summary:
    """Add up result lines in file order; prompts are told apart by their metadata text."""
    by_tag: dict[str, list[bool]] = {}
    by_prompt: dict[str, bool] = {}
    for result in results:
        by_tag.setdefault(result.tag, []).append(result.correct)
        by_prompt[result.metadata] = by_prompt.get(result.metadata, False) or result.correct
    if not by_tag:
        raise ValueError("no GenEval result to summarize; expected at least one result line")
    return Summary(
        tasks=tuple(
            TaskScore(tag, num_correct=sum(marks), num_images=len(marks))
            for tag, marks in by_tag.items()
        ),
        num_prompts=len(by_prompt),
        num_correct_prompts=sum(by_prompt.values()),
    )
