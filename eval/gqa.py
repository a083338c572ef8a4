"""GQA: questions made from scene graphs.

Below DATA (see eval.benchmark_data), in the folder `gqa`:

    llava_gqa_testdev_balanced.jsonl        LLaVA's questions
    data/testdev_balanced_questions.json    the official questions with their answers
    data/images/                            the pictures

Neither scene graphs nor choices are needed. Validity and plausibility are reported only with the
file of choices, which does not exist for testdev; the official script gives them as 0 without it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.answer_files import AnswerLine, BenchmarkQuestion, read_answers
from eval.benchmark_data import (
    BUNDLE,
    check_fields,
    check_pictures,
    is_result_list,
    need_file,
    read_questions,
    read_result_list,
    text_list,
    write_result_list,
)
from eval.gqa_rules import (
    NAME,
    Choices,
    Question,
    convert,
    parse_question,
    score_predictions,
)
from eval.report import BenchmarkReport
from eval.scorer_commands import AnsweredOnlyOption, ForceOption, OutputOption, run_scorer
from unitok.files import read_json

__all__ = ["MAX_NEW_TOKENS", "NAME", "load_questions", "score_answers", "write_submission"]

MAX_NEW_TOKENS = 128
COMMAND = "python -m eval.gqa"
SOURCE = "GQA's page, cs.stanford.edu/people/dorarad/gqa"

_LLAVA_FILE = "llava_gqa_testdev_balanced.jsonl"
_QUESTIONS = "testdev_balanced_questions.json"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """LLaVA's questions of the balanced testdev split."""
    folder = data / NAME
    questions = read_questions(folder / _LLAVA_FILE, folder / "data" / "images", source=BUNDLE)
    return check_pictures(questions, source=SOURCE)


def read_official_questions(path: Path) -> list[Question]:
    """The questions of an official file, in its order."""
    records = read_json(need_file(path, SOURCE))
    if not records:
        raise ValueError(f"{path} holds no questions; get it again from {SOURCE}")
    return [
        parse_question(question_id, record, source=str(path))
        for question_id, record in records.items()
    ]


def read_choices(path: Path) -> dict[str, Choices]:
    """The official choices by question id."""
    choices = {}
    for question_id, record in read_json(need_file(path, SOURCE)).items():
        place = f"{path}, question {question_id}"
        check_fields(record, {"valid": list, "plausible": list}, place=place)
        valid, plausible = (
            frozenset(text_list(record, name, place=place)) for name in ("valid", "plausible")
        )
        choices[question_id] = Choices(valid, plausible)
    return choices


def read_predictions(path: Path) -> list[AnswerLine]:
    """Predictions from the official list, as they are, or converted from LLaVA's answer file."""
    if is_result_list(path):
        return read_result_list(path, id_key="questionId", answer_key="prediction")
    return convert(read_answers(path))


def score_answers(
    answers: Sequence[AnswerLine], data: Path, *, answered_only: bool = False
) -> BenchmarkReport:
    """Score raw answers by the official questions below DATA."""
    questions = read_official_questions(data / NAME / "data" / _QUESTIONS)
    return score_predictions(convert(answers), questions, answered_only=answered_only)


def prediction_list(predictions: Sequence[AnswerLine]) -> list[dict[str, Any]]:
    """Predictions as the official evaluator reads them."""
    return [
        {"questionId": prediction.question_id, "prediction": prediction.text}
        for prediction in predictions
    ]


def write_submission(answers: Sequence[AnswerLine], data: Path, path: Path) -> None:
    """Write the predictions for GQA's own evaluator; `data` is not needed for that."""
    write_result_list(prediction_list(convert(answers)), path)


@app.command(
    help="Score answers as GQA's eval.py does.\n\n"
    f"Example: {COMMAND} --answers merge.jsonl --annotations {_QUESTIONS} -o report.json"
)
def main(
    answers: Annotated[Path, typer.Option(help="LLaVA's answers or official predictions")],
    annotations: Annotated[Path, typer.Option(help=f"Official file such as {_QUESTIONS}")],
    choices: Annotated[Path | None, typer.Option(help="Official file, for validity")] = None,
    answered_only: AnsweredOnlyOption = False,
    submission: Annotated[Path | None, typer.Option(help="Write official predictions")] = None,
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    def score() -> BenchmarkReport:
        predictions = read_predictions(answers)
        report = score_predictions(
            predictions,
            read_official_questions(annotations),
            choices=None if choices is None else read_choices(choices),
            answered_only=answered_only,
        )
        if submission is not None:
            write_result_list(prediction_list(predictions), submission)
        return report

    run_scorer(score, output=output, submission=submission, force=force)


if __name__ == "__main__":
    app()
