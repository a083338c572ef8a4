"""Scores the pictures of a GenEval run and writes its results folder.

detections.jsonl  what the detector saw, to be scored again without it
results.jsonl     the official line of each picture
summary.json      the official summary, and who judged
report.html       every picture with its boxes and its verdict
report.json       the report as every benchmark writes it; comes last, so it ends a run
parts/            records of single pictures, while a run is going on
"""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from eval.detections import DetectionHeader, header_text
from eval.geneval_coverage import Coverage, check_coverage, measure_coverage
from eval.geneval_judge import (
    Judge,
    JudgeChoice,
    JudgingTask,
    asks_for_color,
    part_path,
    read_part,
    sample_key,
)
from eval.geneval_page import build_page
from eval.geneval_prompts import NUM_OFFICIAL_IMAGES
from eval.geneval_results import (
    METADATA_FILE,
    ImageResult,
    Sample,
    find_folders,
    find_samples,
    summarize,
)
from eval.picture_folder import SETTINGS_FILE
from eval.processes import run_with_bar
from eval.report import BenchmarkReport, GroupScore, ItemCounts, ItemResult, write_report
from eval.result_folder import begin_folder, find_difference, read_settings
from mllm.console import announce
from unitok.files import atomic_write, check_output, write_json

DETECTIONS_FILE = "detections.jsonl"
RESULTS_FILE = "results.jsonl"
SUMMARY_FILE = "summary.json"
PAGE_FILE = "report.html"
REPORT_FILE = "report.json"
PARTS_FOLDER = "parts"
PARTS_SETTINGS = "judge.json"


@dataclass(frozen=True)
class ScoringRun:
    """Where the pictures are, where results go, and what counts as all of them."""

    images: Path
    output: Path
    num_images: int | None = None  # of each prompt; None: as generated, else the official number
    is_partial: bool = False
    force: bool = False

    @property
    def parts(self) -> Path:
        return self.output / PARTS_FOLDER

    def check(self) -> None:
        """Make the results folder; refuse one with finished results."""
        self.output.mkdir(parents=True, exist_ok=True)
        check_output(self.output / REPORT_FILE, force=self.force)


def score(run: ScoringRun, choice: JudgeChoice, *, num_processes: int = 1) -> BenchmarkReport:
    """Judge all pictures, or go on where an earlier run stopped, and write the results."""
    run.check()
    samples = find_samples(run.images)
    generation = read_settings(run.images, file=SETTINGS_FILE)
    coverage = measure_coverage(find_folders(run.images), generation, num_images=run.num_images)
    check_coverage(coverage, run.images, is_partial=run.is_partial)
    announce(f"loading {choice.detector or choice.detections}")
    judge = choice.load()
    has_colors = any(map(asks_for_color, samples))
    settings = {**judge.describe(has_colors=has_colors), "generation": generation}
    prepare_parts(run, settings)
    judge_missing(run, samples, choice, judge=judge, num_processes=num_processes)
    report = write_results(run, samples, coverage, header=judge.header, settings=settings)
    shutil.rmtree(run.parts)
    return report


def prepare_parts(run: ScoringRun, settings: Mapping[str, Any]) -> None:
    """The folder of records; those of another judge or of other pictures are refused."""
    begun = read_settings(run.parts, file=PARTS_SETTINGS) or {}
    if run.force and run.parts.exists() and find_difference(begun, settings):
        shutil.rmtree(run.parts)
    remedy = "name a new folder, or pass --force"
    begin_folder(run.parts, settings, file=PARTS_SETTINGS, remedy=remedy)


def judge_missing(
    run: ScoringRun,
    samples: Sequence[Sample],
    choice: JudgeChoice,
    *,
    judge: Judge,
    num_processes: int,
) -> None:
    """Judge the pictures that have no record yet."""
    missing = [
        sample
        for sample in samples
        if not is_current(
            part_path(run.parts, sample_key(sample, run.images)), find_sources(sample, choice)
        )
    ]
    num_done = len(samples) - len(missing)
    announce(f"judging {len(missing)} of {len(samples)} pictures")
    # A loaded judge is not handed to other processes: they load their own.
    shared = judge if num_processes == 1 else None
    task = JudgingTask(run.images, run.parts, missing, choice, shared)
    run_with_bar(
        task, "judging", num_done=num_done, num_items=len(samples), num_processes=num_processes
    )


def find_sources(sample: Sample, choice: JudgeChoice) -> list[Path]:
    """The files that a record is made from: picture, what its prompt demands, what was detected."""
    sources = [sample.path, sample.path.parent.parent / METADATA_FILE]
    return sources if choice.detections is None else [*sources, choice.detections]


def is_current(part: Path, sources: Iterable[Path]) -> bool:
    """Whether there is a record of a picture, not older than what it is made from."""
    if not part.is_file():
        return False
    made = part.stat().st_mtime_ns
    return all(made >= source.stat().st_mtime_ns for source in sources)


# ---- results -------------------------------------------------------------------------------------


def write_results(
    run: ScoringRun,
    samples: Sequence[Sample],
    coverage: Coverage,
    *,
    header: DetectionHeader,
    settings: Mapping[str, Any],
) -> BenchmarkReport:
    """Put the records together and write all files of the results folder."""
    keys = [sample_key(sample, run.images) for sample in samples]
    parts = [part_path(run.parts, key) for key in keys]
    results = [read_part(path)[1] for path in parts]
    report = build_report(results, keys, coverage=coverage, settings=settings)
    named = replace(header, color_classifier=settings["colors"] or "")
    # One line at a time: the masks of a whole run fill a memory.
    lines = chain([header_text(named)], (read_part(path)[0] for path in parts))
    write_lines(lines, run.output / DETECTIONS_FILE)
    write_lines(
        (f"{json.dumps(asdict(result))}\n" for result in results), run.output / RESULTS_FILE
    )
    write_json(build_summary(results, report), run.output / SUMMARY_FILE)
    write_lines([build_page(report, results, run.output)], run.output / PAGE_FILE)
    write_report(report, run.output / REPORT_FILE)
    return report


def write_lines(lines: Iterable[str], path: Path) -> None:
    """Write lines, which have their ends, in one step."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(lines)


def build_summary(results: Sequence[ImageResult], report: BenchmarkReport) -> dict[str, Any]:
    """The official summary with what must stand beside every score."""
    return {
        "benchmark": report.benchmark,
        "is_complete": report.settings["is_complete"],
        "detector": report.settings["detector"],
        "detector_fingerprint": report.settings["detector_fingerprint"],
        **summarize(results).report(),
    }


def build_report(
    results: Sequence[ImageResult],
    keys: Sequence[str],
    *,
    coverage: Coverage,
    settings: Mapping[str, Any],
) -> BenchmarkReport:
    """Scores 0..1, overall and by task, with the verdict on each picture."""
    summary = summarize(results)
    return BenchmarkReport(
        benchmark=benchmark_name(coverage),
        metrics={
            "overall": summary.overall,
            "correct_images": sum(result.correct for result in results) / len(results),
            "correct_prompts": summary.num_correct_prompts / summary.num_prompts,
        },
        counts=ItemCounts(
            len(results), num_missing=coverage.num_missing, num_extra=coverage.num_extra
        ),
        groups=tuple(GroupScore(task.tag, task.num_images, task.score) for task in summary.tasks),
        items=tuple(
            ItemResult(
                key,
                float(result.correct),
                group=result.tag,
                details={
                    "prompt": result.prompt,
                    "reason": result.reason,
                    "kept": json.loads(result.details),
                },
            )
            for key, result in zip(keys, results, strict=True)
        ),
        settings={**settings, "prompts": coverage.prompts, "is_complete": coverage.is_complete},
        notes=build_notes(coverage),
    )


def benchmark_name(coverage: Coverage) -> str:
    """geneval for the official prompts alone, and only if all pictures are there."""
    name = coverage.prompts["name"]
    parts = ["geneval", "" if name == "official" else name]
    return "-".join(filter(None, [*parts, "" if coverage.is_complete else "partial"]))


def build_notes(coverage: Coverage) -> tuple[str, ...]:
    """What keeps the scores from being compared with published ones."""
    notes = []
    if coverage.problems():
        notes.append(
            f"partial: {coverage.num_found} of {coverage.num_expected} pictures were scored; "
            f"{'; '.join(coverage.problems())}"
        )
    if "num_all" in coverage.prompts:
        notes.append(
            f"partial: only {coverage.prompts['num_prompts']} of {coverage.prompts['num_all']} "
            "prompts were chosen (--limit): no published score compares"
        )
    elif coverage.prompts["name"] != "official":
        notes.append("the prompts are not GenEval's: no published score compares")
    elif coverage.num_images != NUM_OFFICIAL_IMAGES:
        notes.append(
            f"{coverage.num_images} pictures of each prompt, the official number is "
            f"{NUM_OFFICIAL_IMAGES}"
        )
    return tuple(notes)
