"""The commands of scorers: the same options, and the same way to score, store and print.

`--answers` names a file of answers, `--data` the folder of LLaVA's evaluation bundle (DATA of
eval.benchmark_data), and `--annotations`, where one official file is enough, that file.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from eval.answer_files import AnswerLine, read_answers
from eval.report import BenchmarkReport, print_report, write_report
from mllm.console import user_errors
from unitok.files import check_output

AnswersOption = Annotated[
    Path, typer.Option("--answers", help="Answer file: one JSON object a line")
]
DataOption = Annotated[
    Path,
    typer.Option("--data", help="Folder with LLaVA's evaluation bundle, playground/data/eval"),
]
AnsweredOnlyOption = Annotated[
    bool, typer.Option("--answered-only", help="Leave out questions without an answer")
]
OutputOption = Annotated[Path | None, typer.Option("-o", help="Also store the report as JSON")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite what is there")]


def run_scorer(
    score: Callable[[], BenchmarkReport],
    *,
    output: Path | None,
    force: bool = False,
    submission: Path | None = None,
) -> None:
    """The body of a scorer's command: score, store if asked to, print.

    `submission` is a file that `score` writes.
    """
    with user_errors():
        for path in filter(None, (output, submission)):
            check_output(path, force=force)
        present(score(), output)


def present(report: BenchmarkReport, output: Path | None) -> None:
    """Store a report if there is a file for it, and print it."""
    if output is not None:
        write_report(report, output)
    print_report(report)


def scorer_app(
    module: str, score: Callable[[Sequence[AnswerLine], Path], BenchmarkReport]
) -> typer.Typer:
    """The command of a benchmark that has no options of its own."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command(
        help=f"Score answers.\n\nExample: python -m eval.{module} --answers {module}.jsonl "
        "--data playground/data/eval -o results.json"
    )
    def main(
        answers: AnswersOption,
        data: DataOption,
        output: OutputOption = None,
        force: ForceOption = False,
    ) -> None:
        run_scorer(lambda: score(read_answers(answers), data), output=output, force=force)

    return app
