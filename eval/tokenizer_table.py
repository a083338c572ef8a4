"""Tokenizers side by side: reconstruction, zero-shot and linear probe, a row for each model.

Published scores are rows of their own, and there only if something was measured on the pictures
that they are about.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.published import PublishedScore, published_scores
from eval.report import BenchmarkReport, read_report, shown
from eval.score_table import NOTHING, ScoreTable, published_cells
from eval.table_picture import draw_table
from mllm.console import say
from unitok.files import atomic_write, check_output

TITLE = "Tokenizers"
OWN = "-own"  # ends the names of benchmarks on other pictures than the published ones
# What two rows must have in common to compare; a setting that a benchmark lacks is the same.
SAME_PICTURES = (
    "num_pictures",
    "names_sha256",
    "pixels_sha256",
    "labels_sha256",
    "recipe",
    "image_size",
)


@dataclass(frozen=True)
class Column:
    """A metric of one benchmark."""

    benchmark: str
    metric: str
    heading: str


COLUMNS = (
    Column("reconstruction", "rfid", "rFID"),
    Column("reconstruction", "inception_score", "IS"),
    Column("reconstruction", "psnr", "PSNR"),
    Column("reconstruction", "ssim", "SSIM"),
    Column("reconstruction", "lpips", "LPIPS"),
    Column("reconstruction", "bits_per_pixel", "bits/px"),
    Column("reconstruction", "codebook_usage", "usage %"),
    Column("reconstruction", "codebook_perplexity", "perplexity"),
    Column("zeroshot", "top1", "zero-shot %"),
    Column("zeroshot", "top5", "top-5 %"),
    Column("linear_probe", "accuracy", "probe %"),
)
BENCHMARKS = tuple(dict.fromkeys(column.benchmark for column in COLUMNS))
# By model and benchmark.
Reports = Mapping[tuple[str, str], BenchmarkReport]


def write_table(paths: Sequence[Path], output: Path, *, force: bool = False) -> None:
    """Write the table of stored reports as Markdown and as a PNG beside it, and print it."""
    if output.suffix != ".md":
        raise ValueError(f"the output must end in .md, got {output}")
    picture = output.with_suffix(".png")
    for path in (output, picture):
        check_output(path, force=force)
    table = build_table(collect([_read(path) for path in paths]))
    with atomic_write(output) as temporary:
        temporary.write_text(table.markdown(), encoding="utf-8")
    with atomic_write(picture) as temporary:
        draw_table(table).save(temporary)
    say(table.markdown(), end="")


def _read(path: Path) -> BenchmarkReport:
    if not path.is_file():
        raise FileNotFoundError(f"no report at {path}; expected a report.json")
    return read_report(path)


def collect(reports: Sequence[BenchmarkReport]) -> Reports:
    """The reports by model and benchmark; ValueError for other ones, or for two of one kind."""
    found: dict[tuple[str, str], BenchmarkReport] = {}
    for report in reports:
        benchmark = report.benchmark.removesuffix(OWN)
        if benchmark not in BENCHMARKS:
            raise ValueError(
                f"a table of tokenizers takes reports of {', '.join(BENCHMARKS)}, got one of "
                f"{report.benchmark}"
            )
        key = (str(report.settings["model"]), benchmark)
        if key in found:
            raise ValueError(f"{key[0]} has two reports of {benchmark}; leave one of them out")
        found[key] = report
    return found


def build_table(reports: Reports) -> ScoreTable:
    """Rows in the order of the reports, then the published ones; columns that have a number."""
    published = [
        score
        for benchmark in BENCHMARKS
        if any(report.benchmark == benchmark for report in reports.values())
        for score in published_scores().of_benchmark(benchmark)
    ]
    columns = [column for column in COLUMNS if any(key[1] == column.benchmark for key in reports)]
    models = dict.fromkeys(model for model, _ in reports)
    rows = [(model, "measured", *_measured(model, reports, columns=columns)) for model in models]
    rows += _published_rows(published, columns)
    return ScoreTable(
        title=TITLE,
        warnings=tuple(_warnings(reports)),
        heading=("model", "from", *(column.heading for column in columns)),
        rows=tuple(rows),
        notes=tuple(_notes(reports, published)),
    )


def _measured(model: str, reports: Reports, *, columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        report = reports.get((model, column.benchmark))
        value = None if report is None else report.metrics[column.metric]
        yield NOTHING if value is None else shown(value)


def _published_rows(
    published: Sequence[PublishedScore], columns: Sequence[Column]
) -> Iterator[tuple[str, ...]]:
    by_column = [
        published_cells(
            [
                score
                for score in published
                if (score.benchmark, score.metric) == (column.benchmark, column.metric)
            ]
        )
        for column in columns
    ]
    for model, where in {score.model: score.where for score in published}.items():
        yield (model, where, *(cells.get(model, NOTHING) for cells in by_column))


def _warnings(reports: Reports) -> Iterator[str]:
    """Rows that look alike but are not about the same pictures."""
    for benchmark in BENCHMARKS:
        of_one_kind = {model: each for (model, kind), each in reports.items() if kind == benchmark}
        measured_on = {
            model: [each.settings.get(name) for name in SAME_PICTURES]
            for model, each in of_one_kind.items()
        }
        first, *others = measured_on or [""]
        for other in others:
            if measured_on[other] != measured_on[first]:
                yield f"{benchmark}: {other} was not measured on the pictures of {first}"


def _notes(reports: Reports, published: Sequence[PublishedScore]) -> Iterator[str]:
    for (model, benchmark), report in reports.items():
        settings = report.settings
        precision = "bfloat16 autocast" if settings.get("autocast") else settings.get("dtype")
        yield (
            f"{model} ({settings['model_fingerprint']}): {benchmark} on "
            f"{report.counts.num_items} pictures, {precision or 'float32'}"
        )
        yield from (f"{model}, {benchmark}: {note}" for note in report.notes)
    for line in published_scores().citations(published):
        yield f"published: {line}"
