"""The data of the understanding benchmarks: question files, official annotations, result lists.

DATA is the folder that LLaVA calls `playground/data/eval`: the archive eval.zip, named in its
docs/Evaluation.md, unpacks there to a folder per benchmark, and the benchmarks' own files and
pictures are put beside its question files.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from eval.answer_files import AnswerLine, BenchmarkQuestion, read_json_lines
from unitok.files import atomic_write, read_json

BUNDLE = "LLaVA's eval.zip (linked in docs/Evaluation.md of haotian-liu/LLaVA)"
SHORT_ANSWER = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def need_file(path: Path, source: str) -> Path:
    """`path`, or an error that says where to get the file; `source` completes "get it from"."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; get it from {source} and put it there")
    return path


def need_folder(path: Path, source: str) -> Path:
    """Like `need_file`, for a folder."""
    if not path.is_dir():
        raise NotADirectoryError(
            f"{path} is no folder; get its files from {source} and put them there"
        )
    return path


def read_questions(path: Path, image_folder: Path, *, source: str) -> list[BenchmarkQuestion]:
    """Questions of a file in LLaVA's format, whether or not their pictures are there."""
    questions = [
        _parse_question(record, image_folder, place=place)
        for place, record in read_json_lines(need_file(path, source))
    ]
    if not questions:
        raise ValueError(f"{path} holds no questions; get it again from {source}")
    return questions


def _parse_question(
    record: Mapping[str, Any], image_folder: Path, *, place: str
) -> BenchmarkQuestion:
    record = {"category": None, **record}
    check_fields(
        record,
        {"question_id": (int, str), "text": str, "image": str, "category": (str, NoneType)},
        place=place,
    )
    return BenchmarkQuestion(
        record["question_id"],
        record["text"],
        image=image_folder / record["image"],
        category=record["category"],
    )


def check_pictures(
    questions: Iterable[BenchmarkQuestion], *, source: str
) -> list[BenchmarkQuestion]:
    """The questions, if the file of every picture exists."""
    checked = list(questions)
    for question in checked:
        if isinstance(question.image, Path) and not question.image.is_file():
            raise FileNotFoundError(
                f"{question.image}, the picture of question {question.question_id}, does not "
                f"exist; get the pictures from {source} and put them there"
            )
    return checked


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


def read_records(path: Path, key: str, *, source: str) -> Iterator[tuple[str, Any]]:
    """The entries of the list `key` in an official JSON file, with the place of each."""
    records = read_json(need_file(path, source)).get(key)
    if not isinstance(records, list) or not records:
        got = "an empty one" if records == [] else type(records).__name__
        raise ValueError(f"{path} must hold a list {key}, got {got}; get it again from {source}")
    for number, record in enumerate(records):
        yield f"{path}, {key}[{number}]", record


def read_json_list(path: Path) -> list[Any]:
    """The list in a JSON file; ValueError that names the file for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON file ({error}); download it again") from None
    if not isinstance(content, list):
        raise ValueError(f"{path} must hold a JSON list, got {type(content).__name__}")
    return content


def is_result_list(path: Path) -> bool:
    """Whether a file of answers is one JSON list, not a line for each answer."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name a file with answers")
    with path.open("rb") as file:
        return next((line.lstrip() for line in file if line.strip()), b"").startswith(b"[")


def read_result_list(path: Path, *, id_key: str, answer_key: str) -> list[AnswerLine]:
    """Answers in an official format: a JSON list of objects with an id and an answer."""
    answers = []
    for number, record in enumerate(read_json_list(path)):
        place = f"{path}, [{number}]"
        check_fields(record, {id_key: (int, str), answer_key: str}, place=place)
        answers.append(AnswerLine(record[id_key], record[answer_key]))
    return answers


def write_result_list(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an official JSON list in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(records), encoding="utf-8")
