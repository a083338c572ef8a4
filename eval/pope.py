"""POPE: does a picture contain an object? Precision, recall and F1 of "yes" (official scorer).

Files below DATA:

    pope/llava_pope_test.jsonl                 LLaVA's 8,910 questions, ids over all categories
    pope/val2014/                              COCO val2014 pictures
    pope/coco/coco_pope_{random,popular,adversarial}.json   labels, one JSON object a line

The labels must be those of AoiDragon/POPE at commit e3e3926, where `random` has 2,910 lines.
Later ones have 3,000 in another order. The official scorer pairs answers and labels by their
place in the files and so mixes them up silently; here pictures and questions are compared, and
where they differ, answers and labels are joined on them and a note says so.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eval.answer_files import AnswerLine, BenchmarkQuestion, QuestionId, read_json_lines, repeated
from eval.benchmark_data import BUNDLE, SHORT_ANSWER, check_pictures, read_questions
from eval.report import BenchmarkReport, GroupScore, ItemResult
from eval.scorer_commands import scorer_app
from eval.scoring import count_items, listed

NAME = "pope"
MAX_NEW_TOKENS = 128
NUM_QUESTIONS = 8910
CATEGORIES = ("random", "popular", "adversarial")
LABEL_SOURCE = "output/coco of AoiDragon/POPE at commit e3e3926"
PICTURE_SOURCE = "COCO's val2014.zip"
NO_WORDS = frozenset({"No", "not", "no"})  # exactly these: NO and nope are a yes


def parse_answer(text: str) -> str:
    """`yes` or `no`: no only if its first sentence holds a word of refusal between blanks."""
    words = text.split(".")[0].replace(",", "").split(" ")
    return "yes" if NO_WORDS.isdisjoint(words) else "no"


@dataclass(frozen=True)
class CategoryScore:
    """The confusion counts of one category; a measure whose denominator is zero is None."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    num_yes: int  # among all answers, those without a label too
    num_answers: int

    @property
    def precision(self) -> float | None:
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float | None:
        precision, recall = self.precision, self.recall
        if precision is None or recall is None:
            return None
        return _ratio(2 * precision * recall, precision + recall)

    @property
    def accuracy(self) -> float | None:
        num_right = self.true_positives + self.true_negatives
        return _ratio(num_right, num_right + self.false_positives + self.false_negatives)

    @property
    def yes_ratio(self) -> float | None:
        return _ratio(self.num_yes, self.num_answers)

    def measures(self) -> dict[str, float | None]:
        """The five printed numbers, 0 to 1, in the official order."""
        return {
            "f1": self.f1,
            "accuracy": self.accuracy,
            "precision": self.precision,
            "recall": self.recall,
            "yes_ratio": self.yes_ratio,
        }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def score_category(texts: Sequence[str], labels: Sequence[str]) -> CategoryScore:
    """Answers against labels by position; the surplus of either is left out of the counts."""
    says_yes = [parse_answer(text) == "yes" for text in texts]
    # Official: every label but `no` means yes.
    pairs = [(yes, label != "no") for yes, label in zip(says_yes, labels, strict=False)]
    return CategoryScore(
        true_positives=pairs.count((True, True)),
        false_positives=pairs.count((True, False)),
        true_negatives=pairs.count((False, False)),
        false_negatives=pairs.count((False, True)),
        num_yes=sum(says_yes),
        num_answers=len(texts),
    )


def mean_f1(scores: Mapping[str, CategoryScore]) -> float | None:
    """POPE's single number: the plain mean over the three categories, if each has an F1."""
    values = [scores[category].f1 for category in CATEGORIES if category in scores]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(CATEGORIES) if len(defined) == len(CATEGORIES) else None


# The picture's name and the question.
Subject = tuple[str, str]


@dataclass(frozen=True)
class LabelLine:
    """One line of a label file; `subject` is None if it does not say what it is about."""

    label: str
    subject: Subject | None


def read_labels(folder: Path) -> dict[str, list[LabelLine]]:
    """The label files of a folder by category; lines of question_id, image, text and label."""
    files = {path.stem.removeprefix("coco_pope_"): path for path in folder.glob("coco_pope_*.json")}
    if not files:
        raise FileNotFoundError(
            f"{folder} has no label files such as coco_pope_random.json; get them from "
            f"{LABEL_SOURCE} and put them there"
        )
    known = [category for category in CATEGORIES if category in files]
    return {
        category: _read_label_lines(files[category])
        for category in [*known, *sorted(files.keys() - known)]
    }


def _read_label_lines(path: Path) -> list[LabelLine]:
    lines = [_parse_label(record, place) for place, record in read_json_lines(path)]
    if not lines:
        raise ValueError(f"{path} holds no labels; get it again from {LABEL_SOURCE}")
    return lines


def _parse_label(record: Mapping[str, Any], place: str) -> LabelLine:
    if not isinstance(record.get("label"), str):
        raise ValueError(f"{place}: label must be yes or no, got {record.get('label')!r}")
    image, text = record.get("image"), record.get("text")
    subject = (image, text) if isinstance(image, str) and isinstance(text, str) else None
    return LabelLine(record["label"], subject)


@dataclass(frozen=True)
class Pairing:
    """Answers of one category and the labels that stand at the same places."""

    answers: tuple[AnswerLine, ...]
    labels: tuple[str, ...]
    rule: str  # position or question
    notes: tuple[str, ...] = ()


def pair_with_labels(
    answers: Sequence[AnswerLine],
    labels: Sequence[LabelLine],
    *,
    subjects: Mapping[QuestionId, Subject],
    category: str,
) -> Pairing:
    """By position as officially, unless pictures or questions differ there: then by those."""
    asked = [subjects[answer.question_id] for answer in answers]
    num_strangers = sum(
        label.subject not in (None, subject) for subject, label in zip(asked, labels, strict=False)
    )
    by_position = Pairing(tuple(answers), tuple(line.label for line in labels), "position")
    if num_strangers == 0:
        return replace(by_position, notes=_length_notes(answers, labels, category=category))
    by_subject = dict(zip(asked, answers, strict=True))
    joined = [
        (by_subject[line.subject], line.label) for line in labels if line.subject in by_subject
    ]
    if not joined:
        return replace(
            by_position,
            notes=(
                f"{category}: no label names the picture and question of any answer; paired by "
                "position, which nothing confirms",
            ),
        )
    return Pairing(
        answers=tuple(answer for answer, _ in joined),
        labels=tuple(label for _, label in joined),
        rule="question",
        notes=(
            f"{category}: {num_strangers} labels belong to another picture or question than the "
            f"answers at their place, so {len(joined)} of {len(answers)} answers and {len(labels)} "
            f"labels were joined on picture and question; LLaVA's questions need the labels of "
            f"{LABEL_SOURCE}",
            *_ambiguity_notes(asked, labels, category=category),
        ),
    )


def _length_notes(
    answers: Sequence[AnswerLine], labels: Sequence[LabelLine], *, category: str
) -> tuple[str, ...]:
    if len(answers) == len(labels):
        return ()
    return (
        f"{category}: {len(answers)} answers but {len(labels)} labels; the surplus is not counted "
        f"(expected 2,910 for random and 3,000 for the others, labels from {LABEL_SOURCE})",
    )


def _ambiguity_notes(
    asked: Sequence[Subject], labels: Sequence[LabelLine], *, category: str
) -> Iterator[str]:
    """What picture and question, by which labels find their answers, do not tell apart."""
    labelled = [line.subject for line in labels if line.subject is not None]
    for subjects, verb, rule in (
        (asked, "answers are about", "of which the last counts"),
        (labelled, "labels are of", "each of which counts"),
    ):
        if twice := repeated(subjects):
            names = listed(": ".join(subject) for subject in twice)
            yield f"{category}: several {verb} {names}, {rule}"


def load_questions(data: Path) -> list[BenchmarkQuestion]:
    """The questions with their pictures."""
    return check_pictures(_read_questions(data), source=PICTURE_SOURCE)


def _read_questions(data: Path) -> list[BenchmarkQuestion]:
    folder = data / "pope"
    return read_questions(folder / "llava_pope_test.jsonl", folder / "val2014", source=BUNDLE)


def score_answers(answers: Sequence[AnswerLine], data: Path) -> BenchmarkReport:
    """Score answers to LLaVA's question file; ValueError for an id that it does not have."""
    questions = {question.question_id: question for question in _read_questions(data)}
    for answer in answers:
        if answer.question_id not in questions:
            raise ValueError(
                f"POPE has no question {answer.question_id!r}; answers must be to the questions "
                f"of {data / 'pope' / 'llava_pope_test.jsonl'}"
            )
    pairings = _pair_categories(answers, questions, read_labels(data / "pope" / "coco"))
    scores = {
        category: score_category([answer.text for answer in pairing.answers], pairing.labels)
        for category, pairing in pairings.items()
    }
    return BenchmarkReport(
        benchmark=NAME,
        metrics={"mean_f1": mean_f1(scores), **_named_measures(scores)},
        counts=count_items(questions, [answer.question_id for answer in answers]),
        groups=tuple(
            GroupScore(f"{category} f1", num_items=score.num_answers, score=score.f1)
            for category, score in scores.items()
        ),
        items=tuple(
            item for name, pairing in pairings.items() for item in _items(pairing, category=name)
        ),
        settings={"pairing": {name: pairing.rule for name, pairing in pairings.items()}},
        notes=(
            *(note for pairing in pairings.values() for note in pairing.notes),
            *_zero_notes(scores),
            *_question_notes(questions.values(), pairings),
        ),
    )


def _pair_categories(
    answers: Sequence[AnswerLine],
    questions: Mapping[QuestionId, BenchmarkQuestion],
    labels: Mapping[str, Sequence[LabelLine]],
) -> dict[str, Pairing]:
    subjects = {key: _subject(question) for key, question in questions.items()}
    return {
        category: pair_with_labels(
            [answer for answer in answers if questions[answer.question_id].category == category],
            lines,
            subjects=subjects,
            category=category,
        )
        for category, lines in labels.items()
    }


def _subject(question: BenchmarkQuestion) -> Subject:
    name = question.image.name if isinstance(question.image, Path) else ""
    return name, question.text.removesuffix(SHORT_ANSWER)


def _named_measures(scores: Mapping[str, CategoryScore]) -> dict[str, float | None]:
    return {
        f"{category}_{name}": value
        for category, score in scores.items()
        for name, value in score.measures().items()
    }


def _zero_notes(scores: Mapping[str, CategoryScore]) -> list[str]:
    return [
        f"{category}: {', '.join(undefined)} cannot be computed, a denominator is zero"
        for category, score in scores.items()
        if (undefined := [name for name, value in score.measures().items() if value is None])
    ]


def _question_notes(
    questions: Collection[BenchmarkQuestion], labelled: Collection[str]
) -> list[str]:
    asked = {question.category for question in questions if question.category is not None}
    notes = [
        f"{category}: no file coco_pope_{category}.json, so not scored, and without it there is "
        f"no mean; get it from {LABEL_SOURCE}"
        for category in sorted(asked.difference(labelled))
    ]
    if len(questions) != NUM_QUESTIONS:
        notes.append(
            f"the question file has {len(questions)} questions, LLaVA's has {NUM_QUESTIONS}: the "
            "scores do not compare with published ones"
        )
    return notes


def _items(pairing: Pairing, *, category: str) -> list[ItemResult]:
    return [
        ItemResult(
            item_id=str(answer.question_id),
            score=float((parse_answer(answer.text) == "no") == (label == "no")),
            group=category,
            details={
                "answer": answer.text,
                "read_as": parse_answer(answer.text),
                "expected": label,
            },
        )
        for answer, label in zip(pairing.answers, pairing.labels, strict=False)
    ]


app = scorer_app(NAME, score_answers)


if __name__ == "__main__":
    app()
