"""The understanding benchmarks by name.

A benchmark is a module of this package with

- `NAME`, its name on the command line, and `MAX_NEW_TOKENS`, the longest answer it asks for;
- `load_questions(data)`, the questions in the official order;
- `score_answers(answers, data, **options)`, the report on answers; a scorer that counts a question
  without an answer as wrong has the option `answered_only`, which a limited run sets, and one that
  needs every answer raises `eval.scoring.MissingAnswers`;
- `write_submission(answers, data, path)` if its test server takes files, with `SUBMISSION`, the
  file's name, where that is not submission.json;
- those options of the scorer that also choose the questions or shape the submission, such as a
  split, as keywords of `load_questions` or `write_submission`, too;
- `NEEDS_DATA = False` if it makes its own data.

Modules are imported when their benchmark is asked for: what one of them needs, no other misses.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast, get_type_hints

import yaml
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from eval.answer_files import AnswerLine, BenchmarkQuestion
from eval.report import BenchmarkReport

MODULES = {
    "vqav2": "eval.vqav2",
    "gqa": "eval.gqa",
    "textvqa": "eval.textvqa",
    "pope": "eval.pope",
    "mme": "eval.mme",
    "mmvet": "eval.mmvet",
    "mmbench": "eval.mmbench",
    "scienceqa": "eval.scienceqa",
    "seed": "eval.seed_bench",
    "scenes": "eval.scene_vqa",
}


class Benchmark(Protocol):
    """What a benchmark's module offers."""

    NAME: str
    MAX_NEW_TOKENS: int

    def load_questions(self, data: Any, **options: Any) -> list[BenchmarkQuestion]: ...

    def score_answers(
        self, answers: Sequence[AnswerLine], data: Any, **options: Any
    ) -> BenchmarkReport: ...


def benchmark_names() -> list[str]:
    """The benchmarks of this checkout."""
    return [name for name, module in MODULES.items() if find_spec(module) is not None]


def load_benchmark(name: str) -> Benchmark:
    """The module of a benchmark; ValueError with the choices for another name."""
    if name not in benchmark_names():
        raise ValueError(
            f"no benchmark is called {name!r}; choose one of {', '.join(benchmark_names())}"
        )
    return cast(Benchmark, import_module(MODULES[name]))


def check_data(benchmark: Benchmark, data: Path | None) -> None:
    """Raise if a benchmark's data folder is needed and not there."""
    if not getattr(benchmark, "NEEDS_DATA", True):
        return
    if data is None:
        raise ValueError(
            f"{benchmark.NAME} needs its question files and pictures; name their folder (--data)"
        )
    if not data.is_dir():
        raise FileNotFoundError(f"no folder {data}; name the one with the data of {benchmark.NAME}")


def parse_options(benchmark: Benchmark, options: Sequence[str]) -> Mapping[str, Any]:
    """Options such as `split=val` as the keywords that the benchmark's scorer takes."""
    known = text_options(benchmark)
    parsed = {}
    for option in options:
        name, equals, value = option.partition("=")
        if name not in known or not equals:
            choices = ", ".join(f"{each}=..." for each in known) or "none"
            raise ValueError(
                f"{option!r} is no scoring option of {benchmark.NAME}; it has {choices}"
            )
        try:
            parsed[name] = known[name].validate_python(yaml.safe_load(value))
        except yaml.YAMLError:
            raise ValueError(f"{option!r} does not fit {benchmark.NAME}: it is no YAML") from None
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ValueError(f"{option!r} does not fit {benchmark.NAME}: {reason}") from None
    return parsed


def text_options(benchmark: Benchmark) -> dict[str, TypeAdapter[Any]]:
    """The scorer's keywords that can be written down, each with what makes its value of text."""
    score = benchmark.score_answers
    hints = get_type_hints(score)
    options = {}
    for name, parameter in inspect.signature(score).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            # An object of ours, such as a grader, has no text form.
            with suppress(PydanticSchemaGenerationError):
                options[name] = TypeAdapter(hints.get(name, Any))
    return options


def taken_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that a function of the benchmark has as keywords."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in taken}


def submission_name(benchmark: Benchmark) -> str | None:
    """What the file for the benchmark's test server is called; None: there is no such file."""
    if not hasattr(benchmark, "write_submission"):
        return None
    return getattr(benchmark, "SUBMISSION", "submission.json")
