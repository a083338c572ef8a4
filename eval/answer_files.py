"""Question and answer files of the understanding benchmarks, as LLaVA-1.5 writes them.

A question file has one JSON object a line: question_id, image, text, category. An answer file has
question_id, prompt (the question's text, without a mark for the picture), text, answer_id, model_id
and metadata. Scorers need question_id and text; what else a line holds is kept.
"""

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from unitok.files import atomic_write, parse_json_object

QuestionId = int | str
Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True, eq=False)
class BenchmarkQuestion:
    """One question of a benchmark, ready to be asked."""

    question_id: QuestionId
    text: str  # what the answer line stores as its prompt
    image: Path | Image.Image | None = None
    category: str | None = None
    asked: str | None = None  # what the model reads, where that is not `text`

    @property
    def prompt(self) -> str:
        """The user's words to the model."""
        return self.text if self.asked is None else self.asked


@dataclass(frozen=True)
class AnswerLine:
    """One line of an answer file."""

    question_id: QuestionId
    text: str
    prompt: str = ""
    answer_id: str = ""
    model_id: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Objects of a JSONL file with the place of each, such as "answers.jsonl, line 3"."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; name a file with one JSON object a line")
    with path.open("rb") as file:  # a line that is no text is named like any other
        for number, line in enumerate(file, start=1):
            place = f"{path}, line {number}"
            if line.strip():
                yield place, parse_json_object(line, place)


def read_answers(path: Path) -> list[AnswerLine]:
    """All lines of an answer file, in order, duplicates included."""
    return [parse_answer(record, place) for place, record in read_json_lines(path)]


def parse_answer(record: Mapping[str, Any], place: str) -> AnswerLine:
    """An answer line; ValueError that names the place if it lacks its id or its text."""
    for key, kinds in (("question_id", (int, str)), ("text", (str,))):
        if not isinstance(record.get(key), kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{place}: {key} must be {names}, got {record.get(key)!r}")
    known = {name: record[name] for name in AnswerLine.__dataclass_fields__ if name in record}
    return AnswerLine(**known)


def write_answers(answers: Iterable[AnswerLine], path: Path) -> None:
    """Write an answer file in one step."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(answer_text(answer) for answer in answers), encoding="utf-8")


def answer_text(answer: AnswerLine) -> str:
    """The answer's line, with its end."""
    return json.dumps(asdict(answer), ensure_ascii=False) + "\n"


def repeated(ids: Sequence[Id]) -> list[Id]:
    """Ids that occur more than once, each once, in order of their second appearance."""
    seen: set[Id] = set()
    twice: dict[Id, None] = {}
    for question_id in ids:
        if question_id in seen:
            twice[question_id] = None
        seen.add(question_id)
    return list(twice)
