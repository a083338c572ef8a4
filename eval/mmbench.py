"""MMBench: multiple choice asked again with the options shifted (VLMEvalKit's rules, no GPT).

Files below DATA:

    mmbench/mmbench_dev_20230712.tsv     4,377 rows with base64 pictures: 1,176 questions, each
                                         again for every circular shift of its options

A row's index is that of its question plus a multiple of a million. CircularEval counts a question
as right if every shift is, VanillaEval looks at the questions unshifted. Officially GPT reads
what the rules of `infer_option` cannot; here such an answer is wrong, as in VLMEvalKit without a
judge. The leaderboard takes an .xlsx file with a column `prediction`.
"""

import base64
import binascii
import csv
import importlib
import io
import string
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from PIL import Image, UnidentifiedImageError

from eval.answer_files import AnswerLine, BenchmarkQuestion, read_answers
from eval.benchmark_data import LETTER, need_file
from eval.option_inference import infer_option
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scorer_commands import (
    AnswersOption,
    DataOption,
    ForceOption,
    OutputOption,
    run_scorer,
)
from eval.scoring import (
    count_items,
    count_unread,
    duplicate_notes,
    latest_answers,
    percentage,
)
from unitok.files import atomic_write
from unitok.image import FORMATS

NAME = "mmbench"
MAX_NEW_TOKENS = 1024
SUBMISSION = "submission.xlsx"
DEV_SPLIT = "mmbench_dev_20230712"
SOURCE = "download.openmmlab.com/mmclassification/datasets/mmbench"
SHIFT = 1_000_000
ASKED_LETTERS = "ABCD"
NEEDED_COLUMNS = ("index", "question", "A", "B")
# LLaVA's submission leaves these out and puts `prediction` at the seventh place.
UNSENT_COLUMNS = ("hint", "category", "source", "image", "comment", "l2-category")
PREDICTION_PLACE = 6
# A longer cell is a picture, a shorter one the index of the row that holds it.
MAX_REFERENCE = 64
# What pandas, which official scripts read tables with, takes for an empty cell.
EMPTY_CELLS = frozenset(
    (
        *("", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND"),
        *("1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"),
    )
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Row:
    """One row of the table: a question with its options in one order."""

    index: int
    cells: Mapping[str, str]  # every column as text

    @property
    def base(self) -> int:
        """The index of the question unshifted."""
        return self.index % SHIFT

    def cell(self, column: str) -> str | None:
        """The text of a column, None if the cell is empty."""
        text = self.cells.get(column)
        is_empty = text is None or text in EMPTY_CELLS or text.lower() in ("nan", "none")
        return None if is_empty else text

    @property
    def choices(self) -> dict[str, str]:
        """The options by letter."""
        cells = ((letter, self.cell(letter)) for letter in string.ascii_uppercase)
        return {letter: text for letter, text in cells if text is not None}

    def prompt(self) -> str:
        """Hint, question and options, without the request for a letter."""
        hint, question = self.cell("hint"), self.cells["question"]
        lines = [question] if hint is None else [hint, question]
        for letter in ASKED_LETTERS:
            text = self.cell(letter)
            if text is None:  # officially the options end here
                break
            lines.append(f"{letter}. {text}")
        return "\n".join(lines)


def read_rows(path: Path) -> list[Row]:
    """The rows of a table; ValueError for a file that is none, or lacks what all rows need."""
    # Pictures are longer than the csv module's limit for a field.
    csv.field_size_limit(sys.maxsize)
    try:
        with need_file(path, SOURCE).open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            columns, lines = reader.fieldnames or (), list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table ({error}); get it again from {SOURCE}") from None
    if missing := [name for name in NEEDED_COLUMNS if name not in columns]:
        raise ValueError(
            f"{path} must have the columns {', '.join(NEEDED_COLUMNS)}, lacks "
            f"{', '.join(missing)}; get it again from {SOURCE}"
        )
    if not lines:
        raise ValueError(f"{path} holds no questions; get it again from {SOURCE}")
    return [_parse_row(cells, f"{path}, row {number}") for number, cells in enumerate(lines, 1)]


def _parse_row(cells: Mapping[str | None, Any], place: str) -> Row:
    # The csv module fills a short row with None and gathers a long one's surplus under None.
    if None in cells or None in cells.values():
        raise ValueError(
            f"{place} has not a cell for each column; get the table again from {SOURCE}"
        )
    if not cells["index"].isdecimal():
        raise ValueError(f"{place}: index must be a number, got {cells['index']!r}")
    return Row(int(cells["index"]), cast(Mapping[str, str], cells))


def load_questions(data: Path, *, split: str = DEV_SPLIT) -> list[BenchmarkQuestion]:
    """All rows with their pictures, which are decoded only when used."""
    rows = read_rows(_table_path(data, split))
    encoded = {row.index: row.cells.get("image") or "" for row in rows}
    pictures: dict[str, Image.Image] = {}  # rows of one question share theirs
    questions = []
    for row in rows:
        text = encoded[row.index]
        if len(text) <= MAX_REFERENCE and text.isdigit():
            text = encoded.get(int(text), "")
        if text not in pictures:
            pictures[text] = _open_picture(text, row.index)
        prompt = row.prompt()
        questions.append(
            BenchmarkQuestion(
                row.index,
                prompt,
                image=pictures[text],
                category=row.cell("category"),
                asked=prompt + LETTER,
            )
        )
    return questions


def _table_path(data: Path, split: str) -> Path:
    return data / "mmbench" / f"{split}.tsv"


def _open_picture(text: str, index: int) -> Image.Image:
    try:
        return Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=FORMATS)
    except (binascii.Error, UnidentifiedImageError):
        raise ValueError(
            f"MMBench row {index} holds no picture in base64; download the table again from "
            f"{SOURCE}"
        ) from None


def score_row(row: Row, answer: AnswerLine | None) -> ItemResult:
    """One row; without an answer, or with one that the rules cannot read, it is wrong."""
    letter = None if answer is None else infer_option(answer.text, row.choices)
    return ItemResult(
        item_id=str(row.index),
        score=float(letter is not None and letter == row.cell("answer")),
        group=row.cell("category") or "",
        details={
            "answer": None if answer is None else answer.text,
            "read_as": letter,
            "expected": row.cell("answer"),
        },
    )


def circular_hits(rows: Sequence[Row], items: Sequence[ItemResult]) -> dict[int, bool]:
    """Which questions are right in every shift, by base index."""
    hits: dict[int, bool] = {}
    for row, item in zip(rows, items, strict=True):
        hits[row.base] = hits.get(row.base, True) and item.score == 1
    return hits


def score_answers(
    answers: Sequence[AnswerLine],
    data: Path,
    *,
    split: str = DEV_SPLIT,
    answered_only: bool = False,
) -> BenchmarkReport:
    """CircularEval and VanillaEval on a table with answers; a table without is not scored.

    `answered_only` leaves out the rows without an answer, which are wrong otherwise.
    """
    table = read_rows(_table_path(data, split))
    by_id = latest_answers(answers)
    rows = [row for row in table if row.index in by_id] if answered_only else table
    items = [score_row(row, by_id.get(row.index)) for row in rows]
    is_labelled = any(row.cell("answer") is not None for row in table)
    is_circular = any(row.index >= SHIFT for row in rows)
    hits = circular_hits(rows, items) if is_labelled and is_circular else {}
    vanilla = [item.score == 1 for row, item in zip(rows, items, strict=True) if row.index < SHIFT]
    return BenchmarkReport(
        benchmark=NAME,
        metrics={
            "circular": percentage(sum(hits.values()), len(hits)),
            "vanilla": percentage(sum(vanilla), len(vanilla)) if is_labelled else None,
        },
        counts=replace(
            count_items(
                [row.index for row in table],
                [answer.question_id for answer in answers],
                num_unparsable=count_unread(items),
            ),
            num_items=len(rows),
        ),
        groups=_group_scores(rows, hits),
        items=tuple(items),
        settings={
            "split": split,
            "option_inference": "VLMEvalKit's rules, without GPT",
            "answered_only": answered_only,
        },
        notes=(
            *duplicate_notes(answers),
            *_table_notes(rows, is_labelled=is_labelled, is_circular=is_circular),
        ),
    )


def _group_scores(rows: Iterable[Row], hits: Mapping[int, bool]) -> tuple[GroupScore, ...]:
    """CircularEval by the coarser categories, then by the finer ones."""
    members: dict[str, dict[int, bool]] = {}
    bases = [row for row in rows if row.base in hits and row.index < SHIFT]
    for column in ("l2-category", "category"):
        for row in bases:
            name = row.cell(column)
            if name is not None:
                members.setdefault(name, {})[row.base] = hits[row.base]
    return tuple(
        GroupScore(name, num_items=len(group), score=percentage(sum(group.values()), len(group)))
        for name, group in members.items()
    )


def _table_notes(rows: Sequence[Row], *, is_labelled: bool, is_circular: bool) -> list[str]:
    if not is_labelled:
        return ["the table has no answers: not scored; send the submission to the leaderboard"]
    if not is_circular:
        return ["no options are shifted: CircularEval cannot be computed"]
    num_shifts: dict[int, int] = {}
    for row in rows:
        num_shifts[row.base] = num_shifts.get(row.base, 0) + 1
    num_short = sum(num_shifts[row.base] < len(row.choices) for row in rows if row.index < SHIFT)
    if not num_short:
        return []
    return [f"questions that lack some shifts of their options, and are easier for it: {num_short}"]


def write_submission(
    answers: Sequence[AnswerLine], data: Path, path: Path, *, split: str = DEV_SPLIT
) -> None:
    """Write the leaderboard's .xlsx; needs openpyxl. A row without an answer stays empty."""
    rows = read_rows(_table_path(data, split))
    by_id = latest_answers(answers)
    columns = [name for name in rows[0].cells if name not in UNSENT_COLUMNS] if rows else []
    columns.insert(PREDICTION_PLACE, "prediction")
    workbook = _openpyxl().Workbook()
    sheet = workbook.active
    sheet.append(columns)
    for row in rows:
        answer = by_id.get(row.index)
        known = {"index": row.index, "prediction": None if answer is None else answer.text}
        sheet.append([known[name] if name in known else row.cell(name) for name in columns])
    with atomic_write(path) as temporary:
        workbook.save(temporary)


def _openpyxl():
    try:
        return importlib.import_module("openpyxl")
    except ImportError:
        raise RuntimeError(
            "MMBench's submission is an .xlsx file, which needs openpyxl: pip install openpyxl"
        ) from None


@app.command(
    help="Score MMBench answers.\n\nExample: python -m eval.mmbench --answers mmbench.jsonl "
    "--data playground/data/eval -o results.json"
)
def main(
    answers: AnswersOption,
    data: DataOption,
    split: Annotated[str, typer.Option(help="The table's name without .tsv")] = DEV_SPLIT,
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    run_scorer(
        lambda: score_answers(read_answers(answers), data, split=split),
        output=output,
        force=force,
    )


if __name__ == "__main__":
    app()
