"""VQAv2: questions about COCO's pictures, and what people answered them.

Below DATA (see eval.benchmark_data), in the folder `vqav2`:

    llava_vqav2_mscoco_test-dev2015.jsonl         LLaVA's questions
    llava_vqav2_mscoco_test2015.jsonl             the whole test split, which an upload covers
    test2015/                                     its pictures
    v2_OpenEnded_mscoco_val2014_questions.json    the official files of the split whose answers
    v2_mscoco_val2014_annotations.json            are public
    val2014/                                      its pictures

Answers to the test splits can only be uploaded: LLaVA normalises them as M4C does.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.answer_files import (
    AnswerLine,
    BenchmarkQuestion,
    QuestionId,
    parse_answer,
    read_json_lines,
)
from eval.answer_text import normalize_m4c
from eval.benchmark_data import (
    BUNDLE,
    SHORT_ANSWER,
    check_fields,
    check_pictures,
    is_result_list,
    need_file,
    read_questions,
    read_records,
    read_result_list,
    write_result_list,
)
from eval.report import BenchmarkReport, count_problems
from eval.scorer_commands import AnsweredOnlyOption, ForceOption, OutputOption, present
from eval.scoring import count_items
from eval.vqav2_rules import NAME, Annotation, Normalization, parse_annotation, score_annotated
from mllm.console import announce, say, user_errors
from unitok.files import check_output, read_text

__all__ = ["MAX_NEW_TOKENS", "NAME", "load_questions", "score_answers", "write_submission"]

MAX_NEW_TOKENS = 128
COMMAND = "python -m eval.vqav2"
SOURCE = "visualqa.org, section VQA v2"
PICTURE_SOURCE = "cocodataset.org"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Split(StrEnum):
    """Which questions are asked."""

    TEST_DEV = "test-dev"
    TEST = "test"
    VAL = "val"


_LLAVA_FILES = {
    Split.TEST_DEV: "llava_vqav2_mscoco_test-dev2015.jsonl",
    Split.TEST: "llava_vqav2_mscoco_test2015.jsonl",
}
_VAL_QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
_VAL_ANNOTATIONS = "v2_mscoco_val2014_annotations.json"


def load_questions(data: Path, *, split: Split = Split.TEST_DEV) -> list[BenchmarkQuestion]:
    """The questions of a split; LLaVA reports test-dev."""
    folder = data / NAME
    if split is not Split.VAL:
        path = folder / _LLAVA_FILES[split]
        questions = read_questions(path, folder / "test2015", source=BUNDLE)
        return check_pictures(questions, source=PICTURE_SOURCE)
    questions = [
        BenchmarkQuestion(
            record["question_id"],
            record["question"] + SHORT_ANSWER,
            image=folder / "val2014" / f"COCO_val2014_{record['image_id']:012d}.jpg",
        )
        for record in read_official_questions(folder / _VAL_QUESTIONS)
    ]
    return check_pictures(questions, source=PICTURE_SOURCE)


def read_official_questions(path: Path) -> list[Mapping[str, Any]]:
    """Objects with question_id, image_id and question from an official question file."""
    records = []
    for place, record in read_records(path, "questions", source=SOURCE):
        check_fields(record, {"question_id": int, "image_id": int, "question": str}, place=place)
        records.append(record)
    return records


def read_question_ids(path: Path) -> list[QuestionId]:
    """Ids in the order of a question file, LLaVA's (.jsonl) or an official one."""
    if path.suffix != ".jsonl":
        return [record["question_id"] for record in read_official_questions(path)]
    ids = []
    for place, record in read_json_lines(need_file(path, BUNDLE)):
        check_fields(record, {"question_id": int}, place=place)
        ids.append(record["question_id"])
    return ids


def read_annotations(path: Path) -> list[Annotation]:
    """The annotations of an official file, in its order."""
    return [
        parse_annotation(record, place)
        for place, record in read_records(path, "annotations", source=SOURCE)
    ]


def read_intact_answers(path: Path) -> tuple[list[AnswerLine], int]:
    """Answers from LLaVA's file or an official result list, and the number of broken lines.

    As in LLaVA's conversion, a line that is no JSON is no error; its question has no answer.
    """
    if is_result_list(path):
        return read_result_list(path, id_key="question_id", answer_key="answer"), 0
    answers = []
    num_broken = 0
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            num_broken += bool(line.strip())
            continue
        place = f"{path}, line {number}"
        check_fields(record, {"question_id": (int, str), "text": str}, place=place)
        answers.append(parse_answer(record, place))
    return answers, num_broken


def score_answers(
    answers: Sequence[AnswerLine],
    data: Path,
    *,
    split: Split = Split.TEST_DEV,
    normalization: Normalization = Normalization.OFFICIAL,
    answered_only: bool = False,
) -> BenchmarkReport:
    """Score answers to `val`; for the test splits, which have no public answers, count them."""
    folder = data / NAME
    if split is Split.VAL:
        annotations = read_annotations(folder / _VAL_ANNOTATIONS)
        return score_annotated(
            answers, annotations, normalization=normalization, answered_only=answered_only
        )
    asked = read_question_ids(folder / _LLAVA_FILES[split])
    return BenchmarkReport(
        NAME,
        {"accuracy": None},
        count_items(asked, (answer.question_id for answer in answers)),
        settings={"split": split.value},
        notes=(f"{split.value} has no public answers: the test server scores the submission",),
    )


def submission(
    answers: Sequence[AnswerLine], question_ids: Sequence[QuestionId]
) -> list[dict[str, Any]]:
    """What the test server takes: for each question in order its last answer, or an empty one."""
    texts = {answer.question_id: answer.text for answer in answers}
    return [
        {"question_id": question_id, "answer": normalize_m4c(texts.get(question_id, ""))}
        for question_id in question_ids
    ]


def write_submission(
    answers: Sequence[AnswerLine], data: Path, path: Path, *, split: Split = Split.TEST_DEV
) -> None:
    """Write the upload for the whole test split, of which test-dev is a part.

    Of `val` the answers are written as they are: the official evaluator normalises them itself.
    """
    if split is Split.VAL:
        records = [{"question_id": each.question_id, "answer": each.text} for each in answers]
        write_result_list(records, path)
        return
    question_ids = read_question_ids(data / NAME / _LLAVA_FILES[Split.TEST])
    write_result_list(submission(answers, question_ids), path)


def _score_file(
    answers: Path,
    annotations: Path,
    *,
    questions: Path | None,
    normalization: Normalization,
    answered_only: bool,
) -> BenchmarkReport:
    annotated = read_annotations(annotations)
    if questions is not None:
        asked = set(read_question_ids(questions))
        strange = [one.question_id for one in annotated if one.question_id not in asked]
        if strange:
            raise ValueError(
                f"{annotations} has question {strange[0]!r}, {questions} has not; "
                "name the two files of one split"
            )
    intact, num_broken = read_intact_answers(answers)
    return score_annotated(
        intact,
        annotated,
        normalization=normalization,
        answered_only=answered_only,
        num_unparsable=num_broken,
    )


def _write_upload(answers: Path, questions: Path | None, upload: Path) -> None:
    if questions is None:
        raise ValueError("--submission needs --questions, the file of the split to be covered")
    asked = read_question_ids(questions)
    intact, num_broken = read_intact_answers(answers)
    write_result_list(submission(intact, asked), upload)
    counts = count_items(asked, (answer.question_id for answer in intact))
    say(f"{len(asked)} answers in {upload}")
    for name, value in count_problems(replace(counts, num_unparsable=num_broken)).items():
        announce(f"{name}: {value}")


@app.command(
    help="Score answers as VQAv2's evaluator does, or make the upload for its test server.\n\n"
    f"Example: {COMMAND} --answers results.json --annotations {_VAL_ANNOTATIONS}\n\n"
    f"Example: {COMMAND} --answers merge.jsonl --questions {_LLAVA_FILES[Split.TEST]} "
    "--submission upload.json"
)
def main(
    answers: Annotated[Path, typer.Option(help="LLaVA's answers or an official result list")],
    annotations: Annotated[Path | None, typer.Option(help="Official ones, to score")] = None,
    questions: Annotated[Path | None, typer.Option(help="Official or LLaVA's questions")] = None,
    normalization: Annotated[
        Normalization, typer.Option(help="official: only where people's answers differ")
    ] = Normalization.OFFICIAL,
    answered_only: AnsweredOnlyOption = False,
    upload: Annotated[Path | None, typer.Option("--submission", help="Write the upload")] = None,
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    with user_errors():
        for path in filter(None, (upload, output)):
            check_output(path, force=force)
        if annotations is None and (upload is None or output is not None):
            raise ValueError("name --annotations to score the answers, or --submission alone")
        if upload is not None:
            _write_upload(answers, questions, upload)
        if annotations is not None:
            report = _score_file(
                answers,
                annotations,
                questions=questions,
                normalization=normalization,
                answered_only=answered_only,
            )
            present(report, output)


if __name__ == "__main__":
    app()
