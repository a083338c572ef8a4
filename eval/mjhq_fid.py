"""MJHQ-30K's FID: which pictures must be there, and how far two folders of them are apart.

FIDs differ more by what was compared than by who drew: both folders must hold the pictures of
meta_data.json, name by name, and their sizes, formats and names are stored with the score.
"""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from eval.fid import feature_statistics, frechet_distance
from eval.fid_resize import ResizeName
from eval.file_hashes import sha256_of
from eval.inception import FeatureExtractor
from eval.picture_features import (
    BATCH_SIZE,
    PictureFeatures,
    describe_folder,
    extract_features,
    find_pictures,
)
from eval.picture_folder import read_generation
from eval.report import BenchmarkReport, GroupScore, ItemCounts, write_report
from mllm.console import announce, progress_bar
from unitok.files import read_json

BENCHMARK = "mjhq30k"
NUM_OFFICIAL = 30_000
RESIZE: ResizeName = "clean"
MAX_NAMED = 3  # names in an error


@dataclass(frozen=True)
class PictureEntry:
    """One prompt of meta_data.json and the category whose folder holds its picture."""

    name: str
    category: str
    prompt: str

    @property
    def stem(self) -> str:
        """The picture's path below a folder, without its suffix."""
        return f"{self.category}/{self.name}"


def read_entries(path: Path) -> list[PictureEntry]:
    """The entries of meta_data.json in the file's order; ValueError that names a bad one."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no file at {path}; expected meta_data.json of the data set playgroundai/MJHQ-30K"
        )
    entries = [_parse_entry(name, record, path) for name, record in read_json(path).items()]
    if not entries:
        raise ValueError(f"{path} has no prompts; expected name -> category and prompt")
    return entries


def _parse_entry(name: str, record: Any, path: Path) -> PictureEntry:
    fields = record if isinstance(record, dict) else {}
    category, prompt = (fields.get(key) or "" for key in ("category", "prompt"))
    if not all(isinstance(text, str) and text.strip() for text in (category, prompt)):
        raise ValueError(f"{path}: {name!r} must have the texts category and prompt, got {record}")
    for part in (name, category):
        if not part or part.startswith(".") or "/" in part or "\\" in part:
            raise ValueError(f"{path}: {part!r} is no name for a file or folder")
    return PictureEntry(name, category, prompt)


@dataclass(frozen=True)
class FolderCheck:
    """How the pictures of a folder fit meta_data.json."""

    folder: Path
    num_files: int
    missing: Sequence[str]  # stems, sorted
    extra: Sequence[str]
    num_duplicate: int  # files whose stem another file has

    def counts(self) -> ItemCounts:
        """For the report."""
        return ItemCounts(self.num_files, len(self.missing), self.num_duplicate, len(self.extra))

    def problems(self) -> Iterator[str]:
        """One sentence each."""
        if self.missing:
            yield f"{self.folder} lacks {_count(self.missing)}"
        if self.extra:
            yield f"{self.folder} has {_count(self.extra)} that meta_data.json does not name"
        if self.num_duplicate:
            yield f"{self.folder} has {self.num_duplicate} pictures of one name and several formats"


def _count(stems: Sequence[str]) -> str:
    named = ", ".join(stems[:MAX_NAMED])
    return f"{len(stems)} pictures ({named}{', ...' if len(stems) > MAX_NAMED else ''})"


def check_folder(
    folder: Path, paths: Sequence[Path], entries: Sequence[PictureEntry]
) -> FolderCheck:
    """Compare the files below a folder with the pictures it should hold."""
    found = {path.relative_to(folder).with_suffix("").as_posix() for path in paths}
    wanted = {entry.stem for entry in entries}
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    return FolderCheck(folder, len(paths), missing, extra, len(paths) - len(found))


@dataclass(frozen=True)
class Comparison:
    """Which folders to compare, and how strictly."""

    pictures: Path
    references: Path
    metadata: Path
    is_partial: bool = False
    per_category: bool = False
    batch_size: int = BATCH_SIZE


def score(comparison: Comparison, extractor: FeatureExtractor, *, output: Path) -> BenchmarkReport:
    """Compare and write the report; what a stopped run has extracted is not extracted again."""
    parts = output.with_suffix(".parts")
    report = compare(comparison, extractor, parts=parts)
    write_report(report, output)
    shutil.rmtree(parts)
    return report


def compare(
    comparison: Comparison, extractor: FeatureExtractor, *, parts: Path | None = None
) -> BenchmarkReport:
    """FID of the generated pictures, over all and, if asked for, in each category.

    `parts` is a folder for the features of a run that may be stopped.
    """
    entries = read_entries(comparison.metadata)
    generation = read_generation(comparison.pictures, [entry.prompt for entry in entries])
    folders = (comparison.pictures, comparison.references)
    paths = [find_pictures(folder) for folder in folders]
    checks = [check_folder(*pair, entries) for pair in zip(folders, paths, strict=True)]
    problems = [problem for check in checks for problem in check.problems()]
    if problems and not comparison.is_partial:
        raise ValueError(
            f"{'; '.join(problems)}: complete them, or compare what is there with --partial"
        )
    names = ("generated pictures", "references")
    generated, references = (
        _extract(each, extractor, comparison.batch_size, what=name, parts=parts)
        for each, name in zip(paths, names, strict=True)
    )
    return BenchmarkReport(
        benchmark=BENCHMARK,
        metrics={"fid": distance(generated.features, references.features)},
        counts=checks[0].counts(),
        groups=tuple(score_categories(comparison, generated, references)),
        settings={
            **describe_comparison(comparison, extractor),
            "pictures": describe_folder(comparison.pictures, generated),
            "references": describe_folder(comparison.references, references),
            "generation": generation,
        },
        notes=tuple(notes_on(generated, references, problems, num_entries=len(entries))),
    )


def describe_comparison(comparison: Comparison, extractor: FeatureExtractor) -> dict[str, Any]:
    """How the distance is computed, for JSON."""
    return {
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "resize": RESIZE,
        "distance": "sqrtm, as clean-fid",
        "metadata_sha256": sha256_of(comparison.metadata),
    }


def _extract(
    paths: Sequence[Path],
    extractor: FeatureExtractor,
    batch_size: int,
    *,
    what: str,
    parts: Path | None,
) -> PictureFeatures:
    announce(f"reading {len(paths)} {what}")
    with progress_bar(what) as report:
        return extract_features(
            paths, extractor, resize=RESIZE, batch_size=batch_size, parts=parts, progress=report
        )


def distance(first: NDArray, second: NDArray) -> float:
    """FID of two sets of features (N, D)."""
    return frechet_distance(feature_statistics(first), feature_statistics(second))


def score_categories(
    comparison: Comparison, generated: PictureFeatures, references: PictureFeatures
) -> Iterator[GroupScore]:
    """FID in each category; None where a side has less than two pictures."""
    if not comparison.per_category:
        return
    ours = _by_category(comparison.pictures, generated)
    theirs = _by_category(comparison.references, references)
    for category in sorted({*ours, *theirs}):
        first, second = ours.get(category, []), theirs.get(category, [])
        fid = None
        if min(len(first), len(second)) > 1:
            fid = distance(generated.features[first], references.features[second])
        yield GroupScore(category, len(first), fid)


def _by_category(folder: Path, pictures: PictureFeatures) -> dict[str, list[int]]:
    """Rows of each category's pictures."""
    rows: dict[str, list[int]] = {}
    for row, path in enumerate(pictures.paths):
        rows.setdefault(path.relative_to(folder).parts[0], []).append(row)
    return rows


def notes_on(
    generated: PictureFeatures,
    references: PictureFeatures,
    problems: Sequence[str],
    *,
    num_entries: int,
) -> Iterator[str]:
    """What a reader of the number must know."""
    yield from (f"partial: {problem}" for problem in problems)
    if num_entries != NUM_OFFICIAL:
        yield (
            f"meta_data.json has {num_entries} prompts, not {NUM_OFFICIAL}: no published score "
            "compares"
        )
    num_pictures, num_features = generated.features.shape
    if num_pictures <= num_features:
        yield f"{num_pictures} pictures are few for {num_features} features: the FID is too high"
    sizes = ", ".join(f"{number} of {size}" for size, number in references.sizes.items())
    yield f"references by size: {sizes}; the FID depends on it"
