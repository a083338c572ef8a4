"""TextVQA: questions about text in pictures, scored by M4C's evaluator as LLaVA calls it.

Below DATA (see eval.benchmark_data), in the folder `textvqa`:

    llava_textvqa_val_v051_ocr.jsonl    LLaVA's questions, with the tokens that an OCR system read
    TextVQA_0.5.1_val.json              the official annotations
    train_images/                       the pictures, from train_val_images.zip

An answer finds its annotation by the picture's id and the question, which is recovered from the
prompt that the answer line stores. Scores with and without OCR tokens in the prompt are far
apart, so a report says which were asked. As officially, the accuracy is the mean over the answer
lines, whether or not they cover the annotations.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from eval.answer_files import AnswerLine, BenchmarkQuestion, QuestionId, read_answers
from eval.answer_text import agreement, normalize_m4c
from eval.arithmetic import running_sum
from eval.benchmark_data import (
    BUNDLE,
    check_fields,
    check_pictures,
    read_questions,
    read_records,
    text_list,
)
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scorer_commands import ForceOption, OutputOption, run_scorer
from eval.scoring import MissingAnswers, count_items

NAME = "textvqa"
MAX_NEW_TOKENS = 128
NUM_GROUND_TRUTHS = 10
WITH_OCR = "with OCR tokens"
WITHOUT_OCR = "without OCR tokens"
COMMAND = "python -m eval.textvqa"
SOURCE = "textvqa.org, section Dataset"

_LLAVA_FILE = "llava_textvqa_val_v051_ocr.jsonl"
_ANNOTATIONS = "TextVQA_0.5.1_val.json"
_OCR_FIRST = "OCR tokens: "
_OCR_LINE = "Reference OCR token:"
_MARKED_QUESTION = re.compile(r"Question: (.*?) Short answer:", re.DOTALL)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

Key = tuple[QuestionId, str]  # the picture's id and the question in lower case


@dataclass(frozen=True)
class Annotation:
    """What people answered to one question about one picture."""

    image_id: str
    question: str
    ground_truths: tuple[str, ...]

    @property
    def key(self) -> Key:
        """What an answer line finds it by."""
        return self.image_id, self.question.lower()


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """LLaVA's questions about the validation pictures."""
    folder = data / NAME
    questions = read_questions(folder / _LLAVA_FILE, folder / "train_images", source=BUNDLE)
    return check_pictures(questions, source="train_val_images.zip of textvqa.org")


def read_annotations(path: Path) -> list[Annotation]:
    """The annotations of the official file."""
    annotations = []
    for place, record in read_records(path, "data", source=SOURCE):
        check_fields(record, {"image_id": str, "question": str}, place=place)
        truths = text_list(record, "answers", place=place)
        if len(truths) != NUM_GROUND_TRUTHS:
            raise ValueError(
                f"{place}: answers must be {NUM_GROUND_TRUTHS} texts, got {len(truths)}; get the "
                f"file again from {SOURCE}"
            )
        annotations.append(Annotation(record["image_id"], record["question"], truths))
    return annotations


def question_of(prompt: str) -> str:
    """The question in a prompt, in lower case; ValueError where the official parser stops."""
    lines = prompt.split("\n")
    if prompt.startswith(_OCR_FIRST):
        if marked := _MARKED_QUESTION.search(prompt):
            return marked[1].lower()
    elif f"{_OCR_LINE} " in prompt and len(lines) == 3:
        return lines[1 if prompt.startswith(_OCR_LINE) else 0].lower()
    elif len(lines) == 2:
        return lines[0].lower()
    raise ValueError(
        f"no question can be found in the prompt {prompt!r}; expected the question, a line "
        f"`{_OCR_LINE} ...` or none, and the request for a short answer"
    )


def variant_of(prompt: str) -> str:
    """Whether a prompt that holds a question names OCR tokens."""
    has_tokens = prompt.startswith(_OCR_FIRST) or f"{_OCR_LINE} " in prompt
    return WITH_OCR if has_tokens else WITHOUT_OCR


def answer_scores(ground_truths: Sequence[str]) -> dict[str, float]:
    """The accuracy of each normalised answer that one of ten people gave; all others have none."""
    if len(ground_truths) != NUM_GROUND_TRUTHS:
        raise ValueError(
            f"expected {NUM_GROUND_TRUTHS} ground truths to a question, got {len(ground_truths)}; "
            "download the official annotations again"
        )
    normalized = [normalize_m4c(answer) for answer in ground_truths]
    return {answer: agreement(answer, normalized) for answer in normalized}


def accuracy(answer: str, ground_truths: Sequence[str]) -> float:
    """How right one answer is, 0 to 1."""
    return answer_scores(ground_truths).get(normalize_m4c(answer), 0.0)


def score_annotated(
    answers: Sequence[AnswerLine], annotations: Sequence[Annotation]
) -> BenchmarkReport:
    """The official score of answer lines, each of which counts, and what they leave out."""
    if not answers:
        raise MissingAnswers("there is no answer to score; expected LLaVA's answers to TextVQA")
    by_key = {annotation.key: annotation for annotation in annotations}
    pairs = [(answer, _annotation_of(answer, by_key)) for answer in answers]
    accuracies = [_answer_accuracy(answer, annotation) for answer, annotation in pairs]
    variants = [variant_of(answer.prompt) for answer in answers]
    counts = count_items(
        (annotation.key for annotation in annotations), (annotation.key for _, annotation in pairs)
    )
    groups = _variant_scores(variants, accuracies)
    return BenchmarkReport(
        NAME,
        {"accuracy": percent(accuracies)},
        replace(counts, num_items=len(answers)),
        groups=groups,
        items=tuple(
            ItemResult(
                f"{annotation.image_id}: {annotation.question}",
                value,
                group=variant,
                details={"answer": answer.text, "expected": _favourite(annotation)},
            )
            for (answer, annotation), variant, value in zip(
                pairs, variants, accuracies, strict=True
            )
        ),
        settings={"prompts": [group.group for group in groups]},
        notes=tuple(f"prompts {group.group}: {group.num_items}" for group in groups),
    )


def _annotation_of(answer: AnswerLine, by_key: Mapping[Key, Annotation]) -> Annotation:
    try:
        question = question_of(answer.prompt)
    except ValueError as error:
        raise ValueError(f"answer to picture {answer.question_id!r}: {error}") from None
    if (answer.question_id, question) not in by_key:
        raise ValueError(
            f"answer to picture {answer.question_id!r}: question {question!r} is not annotated; "
            "question_id must be the picture's id, and the prompt as it was asked"
        )
    return by_key[answer.question_id, question]


def _answer_accuracy(answer: AnswerLine, annotation: Annotation) -> float:
    try:
        return accuracy(answer.text, annotation.ground_truths)
    except ValueError as error:
        name = f"picture {annotation.image_id!r}, question {annotation.question!r}"
        raise ValueError(f"{name}: {error}") from None


def _favourite(annotation: Annotation) -> str:
    return Counter(annotation.ground_truths).most_common(1)[0][0]


def percent(accuracies: Sequence[float]) -> float:
    """Their mean, 0 to 100, to the two decimals that the official script prints."""
    return round(100.0 * (running_sum(accuracies) / len(accuracies)), 2)


def _variant_scores(variants: Sequence[str], accuracies: Sequence[float]) -> tuple[GroupScore, ...]:
    by_variant: dict[str, list[float]] = {}
    for variant, value in zip(variants, accuracies, strict=True):
        by_variant.setdefault(variant, []).append(value)
    return tuple(
        GroupScore(variant, len(values), percent(values))
        for variant, values in sorted(by_variant.items())
    )


def score_answers(answers: Sequence[AnswerLine], data: Path) -> BenchmarkReport:
    """Score answers by the official annotations below DATA."""
    return score_annotated(answers, read_annotations(data / NAME / _ANNOTATIONS))


@app.command(
    help="Score answers as LLaVA's eval_textvqa does.\n\n"
    f"Example: {COMMAND} --answers answers.jsonl --annotations {_ANNOTATIONS} -o report.json"
)
def main(
    answers: Annotated[Path, typer.Option(help="Answer file as LLaVA writes it")],
    annotations: Annotated[Path, typer.Option(help=f"Official file, {_ANNOTATIONS}")],
    output: OutputOption = None,
    force: ForceOption = False,
) -> None:
    run_scorer(
        lambda: score_annotated(read_answers(answers), read_annotations(annotations)),
        output=output,
        force=force,
    )


if __name__ == "__main__":
    app()
