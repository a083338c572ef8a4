"""GQA's rules: a prediction is right if it is the answer to the letter, and many are added up.

They are those of GQA's eval.py in the form that LLaVA's users run, which does without scene
graphs, and of LLaVA's conversion of answers to predictions.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import NoneType
from typing import Any

from eval.answer_files import AnswerLine, QuestionId
from eval.benchmark_data import check_fields
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scoring import MissingAnswers, count_items

NAME = "gqa"

# Operations that only state the answer and are no step of reasoning.
_NO_STEPS = ("exist", "query: name", "choose name")
# Officially the choices of each question whose detailed type says Common.
_COMMON_CHOICES = ("color", "material", "shape")

Histograms = Mapping[str, Mapping[str, int]]  # group -> answer -> how often


@dataclass(frozen=True)
class Question:
    """One official question; `num_steps` counts its operations that are steps of reasoning."""

    question_id: str
    answer: str
    is_balanced: bool  # the others do not count
    structural: str
    semantic: str
    detailed: str
    group: str | None  # questions whose answers are alike, for the distribution
    num_words: int
    num_steps: int

    @property
    def is_open(self) -> bool:
        """Whether the answer is a name, and not yes, no or one of two choices."""
        return self.structural == "query"


@dataclass(frozen=True)
class Choices:
    """Answers to one question that make sense, and those that occur in the real world."""

    valid: frozenset[str]
    plausible: frozenset[str]


def parse_question(question_id: str, record: Any, *, source: str = "questions") -> Question:
    """One entry of the official file; ValueError that names it if it lacks anything."""
    place = f"{source}, question {question_id}"
    fields = {"question": str, "answer": str, "isBalanced": bool, "types": dict, "groups": dict}
    check_fields(record, {**fields, "semantic": list}, place=place)
    types = {"detailed": "", **record["types"]}
    check_fields(
        types, {"structural": str, "semantic": str, "detailed": str}, place=f"{place}, types"
    )
    groups = {"global": None, **record["groups"]}
    check_fields(groups, {"global": (str, NoneType)}, place=f"{place}, groups")
    for step in record["semantic"]:
        check_fields(step, {"operation": str, "argument": str}, place=f"{place}, semantic")
    return Question(
        question_id,
        record["answer"],
        is_balanced=record["isBalanced"],
        structural=types["structural"],
        semantic=types["semantic"],
        detailed=types["detailed"],
        group=groups["global"],
        num_words=len(record["question"].split()),
        num_steps=sum(_is_step(step) for step in record["semantic"]),
    )


def _is_step(step: Mapping[str, str]) -> bool:
    text = f"{step['operation']}: {step['argument']}"
    return not any(name in text for name in _NO_STEPS)


def convert(answers: Sequence[AnswerLine]) -> list[AnswerLine]:
    """Answers as predictions: without periods at the end, in lower case, otherwise untouched."""
    return [replace(answer, text=answer.text.rstrip(".").lower()) for answer in answers]


def distribution(gold: Histograms, predicted: Histograms) -> float | None:
    """How far the predictions' distribution is from the answers'; lower is better, 0 is best.

    A hundredth of the chi-square statistic of each group, weighted by its questions. None without
    any group, where the official code divides by zero.
    """
    total = 0.0
    num_questions = 0
    for group, expected in gold.items():
        statistic = 0.0
        for answer, count in expected.items():
            statistic += float(predicted[group].get(answer, 0) - count) ** 2 / count
        size = sum(expected.values())
        total += statistic * size
        num_questions += size
    return total / num_questions / 100 if num_questions else None


def score_predictions(
    predictions: Sequence[AnswerLine],
    questions: Sequence[Question],
    *,
    choices: Mapping[str, Choices] | None = None,
    answered_only: bool = False,
) -> BenchmarkReport:
    """The official scores of predictions; the last of several for one question counts.

    As officially, each balanced question needs one, and predictions for no question are ignored.
    `answered_only` leaves out the questions without a prediction.
    """
    texts = {prediction.question_id: prediction.text for prediction in predictions}
    balanced = [question for question in questions if question.is_balanced]
    scored = [question for question in balanced if question.question_id in texts]
    missing = [question for question in balanced if question.question_id not in texts]
    _check_coverage(scored, missing, answered_only=answered_only)
    counts = count_items(
        (question.question_id for question in questions),
        (prediction.question_id for prediction in predictions),
    )
    metrics = _metrics(scored, texts)
    if choices is not None:
        metrics |= _choice_metrics(scored, texts, choices=choices)
    return BenchmarkReport(
        NAME,
        metrics,
        replace(counts, num_items=len(scored), num_missing=len(missing)),
        groups=_group_scores(scored, texts),
        items=tuple(_item_result(question, texts[question.question_id]) for question in scored),
        settings={"answered_only": answered_only},
        notes=_notes(scored, metrics),
    )


def _check_coverage(
    scored: Sequence[Question], missing: Sequence[Question], *, answered_only: bool
) -> None:
    if missing and not (answered_only and scored):
        raise MissingAnswers(
            f"{len(missing)} balanced questions have no prediction, the first is "
            f"{missing[0].question_id!r}; the official evaluator wants all of them, under ids that "
            "are strings: answer them, or score answered questions only"
        )
    if not scored:
        raise ValueError("there is no balanced question to score; name the official questions")


def _metrics(
    scored: Sequence[Question], texts: Mapping[QuestionId, str]
) -> dict[str, float | None]:
    gold: dict[str, Counter[str]] = defaultdict(Counter)
    predicted: dict[str, Counter[str]] = defaultdict(Counter)
    for question in scored:
        if question.group is not None:
            gold[question.group][question.answer] += 1
            predicted[question.group][texts[question.question_id]] += 1
    distance = distribution(gold, predicted)
    return {
        "accuracy": _accuracy(scored, texts),
        "binary": _accuracy([question for question in scored if not question.is_open], texts),
        "open": _accuracy([question for question in scored if question.is_open], texts),
        "distribution": None if distance is None else round(distance, 2),
    }


def _accuracy(questions: Sequence[Question], texts: Mapping[QuestionId, str]) -> float:
    return _percent([texts[question.question_id] == question.answer for question in questions])


def _percent(marks: Sequence[bool]) -> float:
    """To the two decimals that the official script prints; it gives 0 to no question at all."""
    return round(sum(marks) / len(marks) * 100, 2) if marks else 0.0


def _choice_metrics(
    scored: Sequence[Question],
    texts: Mapping[QuestionId, str],
    *,
    choices: Mapping[str, Choices],
) -> dict[str, float | None]:
    valid, plausible = [], []
    for question in scored:
        if question.question_id not in choices:
            raise ValueError(
                f"question {question.question_id!r} has no choices; name the file of its split"
            )
        prediction, own = texts[question.question_id], choices[question.question_id]
        is_common = "Common" in question.detailed
        valid.append(prediction in (_COMMON_CHOICES if is_common else own.valid))
        plausible.append(prediction in (_COMMON_CHOICES if is_common else own.plausible))
    return {"validity": _percent(valid), "plausibility": _percent(plausible)}


_GROUPINGS: dict[str, Callable[[Question], str | int]] = {
    "structural type": lambda question: question.structural,
    "semantic type": lambda question: question.semantic,
    "steps number": lambda question: question.num_steps,
    "words number": lambda question: question.num_words,
}


def _group_scores(
    scored: Sequence[Question], texts: Mapping[QuestionId, str]
) -> tuple[GroupScore, ...]:
    return tuple(
        GroupScore(f"{kind}: {value}", len(members), _accuracy(members, texts))
        for kind, value_of in _GROUPINGS.items()
        for value, members in _grouped(scored, value_of)
    )


def _grouped(
    questions: Sequence[Question], value_of: Callable[[Question], Any]
) -> list[tuple[Any, list[Question]]]:
    groups: dict[Any, list[Question]] = defaultdict(list)
    for question in questions:
        groups[value_of(question)].append(question)
    return sorted(groups.items(), key=lambda pair: pair[0])


def _item_result(question: Question, prediction: str) -> ItemResult:
    return ItemResult(
        question.question_id,
        float(prediction == question.answer),
        group=question.structural,
        details={"answer": prediction, "expected": question.answer},
    )


def _notes(scored: Sequence[Question], metrics: Mapping[str, float | None]) -> tuple[str, ...]:
    notes = ["distribution: lower is better"]
    if metrics["distribution"] is None:
        notes = ["distribution is undefined: no question belongs to a group"]
    kinds = {question.is_open for question in scored}
    notes += [
        f"{name} is 0, as officially, because no question is {name}"
        for name, is_open in (("binary", False), ("open", True))
        if is_open not in kinds
    ]
    if "validity" not in metrics:
        notes.append("validity and plausibility need the file of choices")
    return tuple(notes)
