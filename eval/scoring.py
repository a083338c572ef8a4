"""What scorers of the understanding benchmarks count: answers, matches, percentages."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from eval.answer_files import AnswerLine, QuestionId, repeated
from eval.report import ItemCounts, ItemResult


class MissingAnswers(ValueError):
    """Some questions have no answer, and the official script wants all of them."""


def latest_answers(answers: Iterable[AnswerLine]) -> dict[QuestionId, AnswerLine]:
    """The answers by question: of several to one question the last, as in official scripts."""
    return {answer.question_id: answer for answer in answers}


def count_items(
    questions: Iterable[Hashable], answers: Iterable[Hashable], *, num_unparsable: int = 0
) -> ItemCounts:
    """How the ids of answers fit those of questions; an id stands once for each of either."""
    asked, answered = Counter(iter(questions)), Counter(iter(answers))  # a mapping: its keys
    surplus = answered - asked
    return ItemCounts(
        num_items=asked.total(),
        num_missing=(asked - answered).total(),
        num_duplicate=sum(count for key, count in surplus.items() if key in asked),
        num_extra=sum(count for key, count in surplus.items() if key not in asked),
        num_unparsable=num_unparsable,
    )


def duplicate_notes(answers: Sequence[AnswerLine]) -> tuple[str, ...]:
    """Says which of several answers to one question counts, where there are any."""
    twice = repeated([answer.question_id for answer in answers])
    if not twice:
        return ()
    return (f"several answers to one question ({listed(twice)}): the last one counts, as usual",)


def percentage(part: float, whole: int) -> float | None:
    """A share as percent in the official order of operations; None of nothing."""
    return part / whole * 100 if whole else None


def accuracy(items: Sequence[ItemResult]) -> float | None:
    """Percent of the items that are right; None of no items."""
    return percentage(sum(item.score == 1 for item in items), len(items))


def count_unread(items: Iterable[ItemResult]) -> int:
    """How many answers there are in which nothing could be read."""
    return sum(
        item.details["read_as"] is None and item.details["answer"] is not None for item in items
    )


def listed(things: Iterable[Any], *, most: int = 3) -> str:
    """The first few things as text, and how many more there are."""
    texts = [str(thing) for thing in things]
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more
