"""MM-Vet's grading: a language model compares an answer with the truth and gives 0 to 1.

The message is a fixed table of examples, which the user's copy of the official evaluator holds,
followed by question, truth and prediction. Grades are stored beside the results, with the name
of the grader and the answers they are about, so that nothing is asked twice.
"""

import ast
import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mllm.console import progress_bar
from unitok.files import atomic_write, read_json

OFFICIAL_GRADER = "gpt-4-0613"
TABLE_SHA256 = "d1b3e0a5b4e72c888b77164489d705bba4dd149934fff564dfba6443d81afe3f"
TABLE_SOURCE = "yuweihao/MM-Vet (mm-vet_evaluator.py)"
MAX_TOKENS = 3
MAX_TRIES = 5
TEMPERATURE_STEP = 0.5
# The official evaluator ends the message so once a grade could not be read.
RETRY_LINE = "\nPredict the correctness of the answer (digit): "
# Seconds between attempts when the endpoint is busy or away.
WAITS = (1.0, 5.0, 30.0, 30.0, 30.0)


@dataclass(frozen=True)
class Reply:
    """What a grader said, and which model it says it is."""

    text: str
    model: str


class Grader(Protocol):
    """Anything that answers a message."""

    @property
    def name(self) -> str:
        """The model asked for, as it stands beside the grades."""

    def ask(self, message: str, *, temperature: float) -> Reply:
        """The reply to one message of a user."""


@dataclass(frozen=True)
class EndpointGrader:
    """A model behind an OpenAI-compatible endpoint, such as https://api.openai.com/v1."""

    name: str
    base_url: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    waits: tuple[float, ...] = WAITS

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"the grader's address must start with http:// or https://, got {self.base_url!r}"
            )

    def ask(self, message: str, *, temperature: float) -> Reply:
        """Ask once, again after a while if the endpoint is busy; RuntimeError if it stays so."""
        body = {
            "model": self.name,
            "messages": [{"role": "user", "content": message}],
            "max_tokens": MAX_TOKENS,
            "temperature": temperature,
        }
        waits = iter(self.waits)
        while True:
            try:
                return self._post(body)
            except (OSError, http.client.HTTPException) as error:
                wait = next(waits, None)
                if wait is None or not _is_passing(error):
                    raise RuntimeError(
                        f"the grader at {self.base_url} does not answer ({error}); check address, "
                        f"model {self.name} and API key, then run again: the grades so far are "
                        "stored"
                    ) from error
                time.sleep(wait)

    def _post(self, body: Mapping[str, Any]) -> Reply:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(
            self.base_url.rstrip("/") + "/chat/completions",
            data=json.dumps(body).encode(),
            headers=headers,
        )
        with urllib.request.urlopen(request, timeout=self.timeout) as response:
            text = response.read().decode()
        try:
            record = json.loads(text)
            content = record["choices"][0]["message"]["content"] or ""
        except (ValueError, KeyError, IndexError, TypeError):
            raise RuntimeError(
                f"the grader at {self.base_url} sent no chat completion, got {text[:200]!r}"
            ) from None
        return Reply(content, model=str(record.get("model", self.name)))


def _is_passing(error: Exception) -> bool:
    """Whether to ask again: the server is busy or away, not unwilling."""
    return (
        not isinstance(error, urllib.error.HTTPError)
        or error.code in (408, 429)
        or (error.code >= 500)
    )


def read_table(folder: Path) -> str:
    """The official table of examples, from the evaluator in `folder`, known by its hash."""
    paths = [folder / f"mm-vet_evaluator{suffix}" for suffix in (".py", ".ipynb")]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise FileNotFoundError(
            f"{paths[0]} does not exist; grading needs the examples in it: get it from "
            f"{TABLE_SOURCE} and put it there"
        )
    for path in found:
        for text in _string_literals(path):
            if hashlib.sha256(text.encode()).hexdigest() == TABLE_SHA256:
                return text
    raise ValueError(
        f"{found[0]} does not hold the official grading examples (SHA-256 {TABLE_SHA256}); get the "
        f"file again from {TABLE_SOURCE}"
    )


def _string_literals(path: Path) -> Iterator[str]:
    """Every string in the source code of a Python file or of a notebook's cells."""
    text = path.read_text(encoding="utf-8")
    sources = [text] if path.suffix == ".py" else _cell_sources(path)
    for source in sources:
        try:
            tree = ast.parse(source)
        except SyntaxError:  # a cell with shell commands
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _cell_sources(path: Path) -> list[str]:
    return ["".join(cell.get("source", "")) for cell in read_json(path).get("cells", [])]


def grading_message(table: str, question: str, *, truth: str, prediction: str) -> str:
    """The message about one prediction; the grader completes the empty last field."""
    spaced = truth.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return table + "\n" + " | ".join((question, spaced, prediction, ""))


def parse_grade(text: str) -> float | None:
    """The grade in a reply, 0 to 1, or None if its first word is no such number."""
    try:
        grade = float(text.split(" ")[0].strip())
    except ValueError:
        return None
    return grade if 0.0 <= grade <= 1.0 else None  # nan is no grade either


@dataclass(frozen=True)
class Grade:
    """A grade and the last reply it comes from; 0 if no reply could be read."""

    score: float
    reply: Reply


def ask_grade(grader: Grader, message: str) -> Grade:
    """Ask until a grade can be read, warmer from the second retry on, as officially."""
    reply = grader.ask(message, temperature=0.0)
    for retry in range(MAX_TRIES - 1):
        grade = parse_grade(reply.text)
        if grade is not None:
            return Grade(grade, reply)
        reply = grader.ask(message + RETRY_LINE, temperature=TEMPERATURE_STEP * retry)
    return Grade(parse_grade(reply.text) or 0.0, reply)


@dataclass
class ItemGrades:
    """The grades of one prediction, one for each run, in the official fields."""

    prediction: str
    model: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    score: list[float] = field(default_factory=list)

    def add(self, grade: Grade) -> None:
        """The grade of one more run."""
        self.model.append(grade.reply.model)
        self.content.append(grade.reply.text)
        self.score.append(grade.score)


@dataclass
class GradeBook:
    """All grades of one grader, by question."""

    grader: str
    grades: dict[str, ItemGrades] = field(default_factory=dict)

    def graded(self, key: str, prediction: str) -> ItemGrades:
        """What is known about a prediction; grades of another prediction are forgotten."""
        known = self.grades.get(key)
        if known is None or known.prediction != prediction:
            known = self.grades[key] = ItemGrades(prediction)
        return known

    def is_complete(self, predictions: Mapping[str, str], num_runs: int) -> bool:
        """Whether every one of these predictions has its grades."""
        return all(
            key in self.grades
            and self.grades[key].prediction == prediction
            and len(self.grades[key].score) >= num_runs
            for key, prediction in predictions.items()
        )

    def write(self, path: Path) -> None:
        """Store everything in one step."""
        with atomic_write(path) as temporary:
            text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")


def read_book(path: Path) -> GradeBook:
    """Stored grades; ValueError that names the file if it holds something else."""
    record = read_json(path)
    try:
        grades = {key: ItemGrades(**item) for key, item in record["grades"].items()}
        return GradeBook(record["grader"], grades)
    except (KeyError, TypeError, AttributeError):
        raise ValueError(
            f"{path} holds no stored grades (grader, grades); name another file for them"
        ) from None


def grade_predictions(
    messages: Mapping[str, str],
    predictions: Mapping[str, str],
    *,
    grader: Grader,
    book: GradeBook,
    path: Path,
    num_runs: int,
) -> None:
    """Ask for every grade that the book lacks, storing each at once."""
    total = num_runs * len(predictions)
    with progress_bar("grading") as show:
        for run in range(num_runs):
            for place, (key, prediction) in enumerate(predictions.items(), start=1):
                grades = book.graded(key, prediction)
                if len(grades.score) <= run:
                    grades.add(ask_grade(grader, messages[key]))
                    book.write(path)
                show(run * len(predictions) + place, total)
