"""Asking a model the questions of a benchmark, and scoring what it answers.

The questions are cut into batches of consecutive ones, the same whatever the number of processes,
and each process asks a run of consecutive batches. A batch of which an answer is missing is asked
as a whole: what a question is computed together with never changes, so answers do not either, and
a run that was killed at any moment ends, started again, with the files of an undisturbed one.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from PIL import Image

from eval.answer_files import AnswerLine, BenchmarkQuestion, write_answers
from eval.answer_parts import open_part, read_parts
from eval.benchmarks import (
    Benchmark,
    check_data,
    load_benchmark,
    parse_options,
    submission_name,
    taken_options,
)
from eval.processes import CountDone
from eval.report import BenchmarkReport, ItemCounts, write_report
from eval.result_folder import SETTINGS_FILE, begin_folder
from eval.scoring import MissingAnswers
from eval.versions import model_versions
from mllm.batch_answers import answer_batch, build_prompt
from mllm.console import announce
from mllm.messages import as_messages
from mllm.pipeline import Pipeline
from mllm.processor import Encoded
from mllm.share import WHOLE, Share, process_device
from unitok.files import read_json

PARTS_FOLDER = "parts"
ANSWERS_FILE = "answers.jsonl"
REPORT_FILE = "report.json"
NUM_HEX = 22  # as long as the ids of LLaVA's answer files


@dataclass(frozen=True)
class AskConfig:
    """Which questions whom to ask, and where to put the answers."""

    benchmark: str
    results: Path
    data: Path | None = None
    model: str = "nano"  # nano, a folder or a hub name
    limit: int | None = None  # only so many questions, for a first look
    batch_size: int = 16
    device: str = "auto"
    dtype: str | None = None
    options: tuple[str, ...] = ()  # of the benchmark, as NAME=VALUE


class Asking:
    """One results folder and the questions whose answers fill it."""

    def __init__(self, config: AskConfig) -> None:
        """Load the questions; raises ValueError or FileNotFoundError if there is no data."""
        self.config = config
        self.folder = config.results
        self.parts = config.results / PARTS_FOLDER
        self.benchmark: Benchmark = load_benchmark(config.benchmark)
        self.options = parse_options(self.benchmark, config.options)
        check_data(self.benchmark, config.data)
        questions = self.benchmark.load_questions(
            config.data, **taken_options(self.benchmark.load_questions, self.options)
        )
        self.num_in_all = len(questions)
        self.questions = questions[: config.limit]

    def rehearse(self) -> None:
        """Score empty answers: what is wrong with the scorer's files is known before any is asked.

        Raises FileNotFoundError for a file that is missing, ValueError for a damaged one.
        """
        blank = [
            self._answer_line(number, "", model_id="") for number in range(len(self.questions))
        ]
        self._score(blank, self.options)

    def ask(self, pipeline: Pipeline, share: Share, *, count_done: CountDone) -> None:
        """Ask what is missing of this process's share.

        A results folder that was begun with other settings, and questions that are too long for
        the model, are refused before the first answer. `count_done` is called with the number of
        answers that were just stored.
        """
        begin_folder(self.folder, self._settings(pipeline))
        answered = read_parts(self.parts)
        batches = [batch for batch in self._batches(share) if not answered.keys() >= set(batch)]
        for batch in batches:
            self._prompts(pipeline, batch)
        if not batches:
            return
        with open_part(self.parts) as append:
            for batch in batches:
                texts = answer_batch(
                    pipeline,
                    self._prompts(pipeline, batch),
                    max_new_tokens=self.benchmark.MAX_NEW_TOKENS,
                )
                found = dict(zip(batch, texts, strict=True))
                new = {number: found[number] for number in batch if number not in answered}
                append(new)
                count_done(len(new))

    def num_missing(self, share: Share = WHOLE) -> int:
        """How many questions of a share have no answer yet."""
        answered = read_parts(self.parts)
        return sum(number not in answered for batch in self._batches(share) for number in batch)

    def finish(self, **options: Any) -> BenchmarkReport:
        """Answers of all processes into one file, scored; call it when none is missing.

        `options` of the scorer that have no text form, such as a grader, join those of the config.
        """
        texts = read_parts(self.parts)
        settings = read_json(self.folder / SETTINGS_FILE)
        answers = [
            self._answer_line(number, texts[number], model_id=settings["model"])
            for number in range(len(self.questions))
        ]
        write_answers(answers, self.folder / ANSWERS_FILE)
        used = {**self.options, **options}
        report = self._mark(self._score(answers, used), settings)
        write_report(report, self.folder / REPORT_FILE)
        self._write_submission(answers, used)
        return report

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _is_complete(self) -> bool:
        return len(self.questions) == self.num_in_all

    def _batches(self, share: Share) -> list[range]:
        """The question numbers of each batch of a share."""
        size = self.config.batch_size
        starts = range(0, len(self.questions), size)
        batches = [range(start, min(start + size, len(self.questions))) for start in starts]
        per_share = -(-len(batches) // share.count)
        return batches[share.index * per_share :][:per_share]

    def _prompts(self, pipeline: Pipeline, batch: Iterable[int]) -> list[Encoded]:
        return [
            build_prompt(
                pipeline.processor,
                as_messages(self.questions[number].prompt, self.questions[number].image),
                name=f"question {self.questions[number].question_id} of {self.benchmark.NAME}",
            )
            for number in batch
        ]

    def _settings(self, pipeline: Pipeline) -> dict[str, Any]:
        """What decides the answers."""
        config = pipeline.model.config
        return {
            "benchmark": self.benchmark.NAME,
            "limit": None if self._is_complete else self.config.limit,
            "questions_sha256": hash_questions(self.questions, self.config.data),
            "num_questions": len(self.questions),
            "model": Path(self.config.model).name,
            **pipeline.fingerprints(),
            "dtype": str(pipeline.model.dtype).removeprefix("torch."),
            "template": config.chat_template_name,
            "image_recipe": config.image_recipe,
            "max_new_tokens": self.benchmark.MAX_NEW_TOKENS,
            "batch_size": self.config.batch_size,
        }

    def _answer_line(self, number: int, text: str, *, model_id: str) -> AnswerLine:
        question = self.questions[number]
        return AnswerLine(
            question_id=question.question_id,
            prompt=question.text,
            text=text,
            answer_id=answer_id(self.benchmark.NAME, number, text),
            model_id=model_id,
        )

    def _score(self, answers: Sequence[AnswerLine], options: Mapping[str, Any]) -> BenchmarkReport:
        """The benchmark's own report; of a limited run about what was asked alone, if it can."""
        score = self.benchmark.score_answers
        limited = taken_options(score, {"answered_only": not self._is_complete})
        try:
            return score(answers, self.config.data, **{**limited, **options})
        except MissingAnswers as error:
            if self._is_complete:
                raise
            unscored = ItemCounts(len(answers), num_missing=self.num_in_all - len(answers))
            note = f"not scored, since answers are missing: {error}"
            return BenchmarkReport(self.benchmark.NAME, {"score": None}, unscored, notes=(note,))

    def _write_submission(self, answers: Sequence[AnswerLine], options: Mapping[str, Any]) -> None:
        """The file for the benchmark's test server, which takes complete runs only."""
        name = submission_name(self.benchmark)
        if name is not None and self._is_complete:
            write = cast(Any, self.benchmark).write_submission
            write(answers, self.config.data, self.folder / name, **taken_options(write, options))

    def _mark(self, report: BenchmarkReport, settings: Mapping[str, Any]) -> BenchmarkReport:
        """The report with the settings of the run, and a note if it is only a first look."""
        notes = report.notes
        if not self._is_complete:
            notes = (
                f"INCOMPLETE: only the first {len(self.questions)} of {self.num_in_all} questions "
                "were asked; the scores are about those alone and no result of the benchmark",
                *notes,
            )
        about = {**settings, "is_complete": self._is_complete, "versions": versions()}
        return replace(report, settings={**about, **report.settings}, notes=notes)


@dataclass(frozen=True)
class AskingTask:
    """Asks with a model that each process loads for itself."""

    config: AskConfig

    def run(self, share: Share, count_done: CountDone) -> None:
        """Load the model and ask one share of the questions."""
        config = self.config
        if share.index == 0:
            announce(f"loading model {config.model}")
        device = process_device(config.device)
        pipeline = Pipeline.from_pretrained(config.model, device=device, dtype=config.dtype)
        Asking(config).ask(pipeline, share, count_done=count_done)


def hash_questions(questions: Sequence[BenchmarkQuestion], data: Path | None) -> str:
    """SHA-256 over what is asked, in its order; the data folder may move."""
    digest = hashlib.sha256()
    for question in questions:
        shown = _image_name(question.image, data)
        record = [question.question_id, question.text, question.prompt, question.category, shown]
        digest.update(f"{json.dumps(record)}\n".encode())
    return digest.hexdigest()


def _image_name(image: Path | Image.Image | None, data: Path | None) -> str:
    """A file by its place in the data folder; of a picture in memory, its size is enough."""
    if isinstance(image, Image.Image):
        return f"{image.width} x {image.height}"
    if image is not None and data is not None and image.is_relative_to(data):
        return image.relative_to(data).as_posix()
    return str(image)


def answer_id(benchmark: str, number: int, text: str) -> str:
    """An id that is the same for the same answer to the same question."""
    record = json.dumps([benchmark, number, text])
    return hashlib.sha256(record.encode()).hexdigest()[:NUM_HEX]


def versions() -> dict[str, str]:
    """Of what the answers depend on: the model's software, and what reads the pictures."""
    return {**model_versions(), "python": platform.python_version(), "pillow": version("pillow")}
