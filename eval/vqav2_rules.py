"""VQAv2's rules: how right an answer is by what ten people answered, and the scores of many.

The evaluator (GT-Vision-Lab/VQA, a013f00) normalises answers only where the people's differ; the
option `always` also normalises the others.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from eval.answer_files import AnswerLine, QuestionId
from eval.answer_text import agreement, normalize_official, strip_whitespace
from eval.arithmetic import round_half_away, running_sum
from eval.benchmark_data import check_fields
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scoring import MissingAnswers, count_items

NAME = "vqav2"


class Normalization(StrEnum):
    """When answers are normalised before they are compared."""

    OFFICIAL = "official"  # where people's answers to the question differ
    ALWAYS = "always"


@dataclass(frozen=True)
class Annotation:
    """What people answered to one question."""

    question_id: QuestionId
    ground_truths: tuple[str, ...]
    answer_type: str  # yes/no, number or other
    question_type: str  # its first words


def parse_annotation(record: Mapping[str, Any], place: str = "annotation") -> Annotation:
    """One official annotation; ValueError that names its place if it lacks anything."""
    fields = {"question_id": int, "answers": list, "answer_type": str, "question_type": str}
    check_fields(record, fields, place=place)
    for answer in record["answers"]:
        check_fields(answer, {"answer": str}, place=f"{place}, an answer")
    if not record["answers"]:
        raise ValueError(f"{place}: question {record['question_id']} has no ground truth")
    return Annotation(
        record["question_id"],
        tuple(answer["answer"] for answer in record["answers"]),
        answer_type=record["answer_type"],
        question_type=record["question_type"],
    )


def accuracy(
    answer: str,
    ground_truths: Sequence[str],
    *,
    normalization: Normalization = Normalization.OFFICIAL,
) -> float:
    """How right one answer is, 0 to 1.

    Where all people gave one answer, the official evaluator compares it as it is, capitals and
    articles included.
    """
    spaced = strip_whitespace(answer)
    truths = [strip_whitespace(truth) for truth in ground_truths]
    if normalization is Normalization.ALWAYS or len(set(truths)) > 1:
        return agreement(normalize_official(spaced), [normalize_official(text) for text in truths])
    return agreement(spaced, truths)


def percent(accuracies: Sequence[float], *, decimals: int = 2) -> float:
    """Their mean, 0 to 100, rounded as by the official evaluator."""
    return round_half_away(100 * running_sum(accuracies) / len(accuracies), decimals)


def percent_by_group(
    pairs: Iterable[tuple[str, float]], *, decimals: int = 2
) -> dict[str, tuple[float, int]]:
    """Mean accuracy in percent and number of questions by group, from pairs (group, accuracy)."""
    groups: dict[str, list[float]] = {}
    for group, value in pairs:
        groups.setdefault(group, []).append(value)
    return {
        group: (percent(values, decimals=decimals), len(values))
        for group, values in sorted(groups.items())
    }


def score_annotated(
    answers: Sequence[AnswerLine],
    annotations: Sequence[Annotation],
    *,
    normalization: Normalization = Normalization.OFFICIAL,
    answered_only: bool = False,
    num_unparsable: int = 0,
) -> BenchmarkReport:
    """The official scores of answers to annotated questions; the last of several answers counts.

    As officially, each annotated question needs an answer and each answer an annotation.
    `answered_only` leaves out the questions without an answer.
    """
    texts = {answer.question_id: answer.text for answer in answers}
    counts = count_items(
        (annotation.question_id for annotation in annotations),
        (answer.question_id for answer in answers),
    )
    _check_coverage(texts, annotations, answered_only=answered_only)
    scored = [annotation for annotation in annotations if annotation.question_id in texts]
    accuracies = [
        accuracy(
            texts[annotation.question_id], annotation.ground_truths, normalization=normalization
        )
        for annotation in scored
    ]
    return BenchmarkReport(
        NAME,
        {"accuracy": percent(accuracies)},
        replace(counts, num_items=len(scored), num_unparsable=num_unparsable),
        groups=_group_scores(scored, accuracies),
        items=tuple(
            _item_result(annotation, texts[annotation.question_id], value)
            for annotation, value in zip(scored, accuracies, strict=True)
        ),
        settings={"normalization": normalization.value, "answered_only": answered_only},
    )


def _check_coverage(
    texts: Mapping[QuestionId, str], annotations: Sequence[Annotation], *, answered_only: bool
) -> None:
    annotated = {annotation.question_id: None for annotation in annotations}  # in their order
    extra = [question_id for question_id in texts if question_id not in annotated]
    if extra:
        raise ValueError(
            f"{len(extra)} answers belong to no annotated question, the first to {extra[0]!r}; "
            "expected answers to those alone: name the annotations of their split"
        )
    missing = [question_id for question_id in annotated if question_id not in texts]
    if missing and not (answered_only and texts):
        raise MissingAnswers(
            f"{len(missing)} annotated questions have no answer, the first is {missing[0]!r}; the "
            "official evaluator wants all of them: answer them, or score answered questions only"
        )
    if not annotated:
        raise ValueError("there is no annotated question to score; name the official annotations")


def _group_scores(
    scored: Sequence[Annotation], accuracies: Sequence[float]
) -> tuple[GroupScore, ...]:
    return tuple(
        GroupScore(f"{kind}: {group}", num_items, score)
        for kind, names in (
            ("answer type", [annotation.answer_type for annotation in scored]),
            ("question type", [annotation.question_type for annotation in scored]),
        )
        for group, (score, num_items) in percent_by_group(
            zip(names, accuracies, strict=True)
        ).items()
    )


def _item_result(annotation: Annotation, answer: str, value: float) -> ItemResult:
    expected = Counter(annotation.ground_truths).most_common(1)[0][0]
    return ItemResult(
        str(annotation.question_id),
        value,
        group=annotation.answer_type,
        details={"answer": answer, "expected": expected},
    )
