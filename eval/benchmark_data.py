"""The data of LLaVA's benchmarks, and how answers fit the questions.

DATA is the folder that LLaVA calls `playground/data/eval`: the archive eval.zip, named in its
docs/Evaluation.md, unpacks there to a folder per benchmark, and the benchmarks' own files and
pictures are put beside its question files.
"""

import json
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from eval.answer_files import AnswerLine, BenchmarkQuestion, read_json_lines
from eval.report import BenchmarkReport, ItemCounts, print_report, write_report
from unitok.files import atomic_write, read_json

SHORT_ANSWER = "\nAnswer the question using a single word or phrase."


def required(path: Path, remedy: str) -> Path:
    """`path`, if it exists; otherwise an error that ends with `remedy`: what to get from where."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    return path


def read_questions(path: Path, images: Path, *, remedy: str) -> list[BenchmarkQuestion]:
    """The questions of one of LLaVA's files about the pictures in a folder.

    `remedy` says how to get the pictures.
    """
    from_llava = f"unpack LLaVA's eval.zip (see its docs/Evaluation.md) to {path.parent.parent}"
    records = read_json_lines(required(path, from_llava))
    required(images, remedy)
    return [_parse_question(record, images, place=place) for place, record in records]


def _parse_question(record: Mapping[str, Any], images: Path, *, place: str) -> BenchmarkQuestion:
    check_fields(record, {"question_id": (int, str), "text": str, "image": str}, place=place)
    return BenchmarkQuestion(
        record["question_id"],
        record["text"],
        image=images / record["image"],
        category=record.get("category"),
    )


def check_fields(
    record: object, kinds: Mapping[str, type | tuple[type, ...]], *, place: str
) -> None:
    """ValueError that names `place` unless `record` is an object with fields of these kinds."""
    if not isinstance(record, dict):
        raise ValueError(f"{place}: expected an object with {', '.join(kinds)}, got {record!r}")
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            allowed = kind if isinstance(kind, tuple) else (kind,)
            expected = " or ".join(one.__name__ for one in allowed)
            raise ValueError(f"{place}: {name} must be {expected}, got {record.get(name)!r}")


def text_list(record: Mapping[str, Any], name: str, *, place: str) -> tuple[str, ...]:
    """The texts in the list `name` of a record; ValueError that names `place` for anything else."""
    texts = record.get(name)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{place}: {name} must be a list of texts, got {texts!r}")
    return tuple(texts)


def read_records(path: Path, key: str, *, remedy: str) -> Iterator[tuple[str, Any]]:
    """The entries of the list `key` in an official JSON file, with the place of each."""
    records = read_json(required(path, remedy)).get(key)
    if not isinstance(records, list):
        raise ValueError(f"{path} must hold a list {key}, got {type(records).__name__}; {remedy}")
    for number, record in enumerate(records):
        yield f"{path}, {key}[{number}]", record


def is_result_list(path: Path) -> bool:
    """Whether a file of answers is one JSON list, not a line for each answer."""
    with required(path, "name a file with answers").open(encoding="utf-8") as file:
        return next((line.lstrip() for line in file if line.strip()), "").startswith("[")


def read_result_list(path: Path, *, id_key: str, answer_key: str) -> list[AnswerLine]:
    """Answers in an official format: a JSON list of objects with an id and an answer."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON list of answers ({error})") from None
    answers = []
    for number, record in enumerate(records):
        place = f"{path}, [{number}]"
        check_fields(record, {id_key: (int, str), answer_key: str}, place=place)
        answers.append(AnswerLine(record[id_key], record[answer_key]))
    return answers


def write_result_list(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an official JSON list in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(records), encoding="utf-8")


def count_items(questions: Iterable[Hashable], answers: Iterable[Hashable]) -> ItemCounts:
    """How the ids of answers fit those of questions; an id stands once for each of either."""
    asked, answered = Counter(questions), Counter(answers)
    surplus = answered - asked
    return ItemCounts(
        num_items=asked.total(),
        num_missing=(asked - answered).total(),
        num_duplicate=sum(count for key, count in surplus.items() if key in asked),
        num_extra=sum(count for key, count in surplus.items() if key not in asked),
    )


def present(report: BenchmarkReport, output: Path | None) -> None:
    """Print a report, and store it if there is a file for it."""
    if output is not None:
        write_report(report, output)
    print_report(report)
