"""MME's rules and files: reading answers, the score of a subtask, the official tool's folder.

The tool (calculation.py of the MME authors) reads one `<subtask>.txt` for each subtask, lines of
`image TAB question TAB Yes|No TAB answer`, the two lines of a picture next to each other. The
converter from LLaVA's answers, which otherwise comes only with a download, is here too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.answer_files import AnswerLine
from eval.arithmetic import running_sum
from eval.benchmark_data import SHORT_ANSWER, need_folder
from unitok.files import read_text

SUBTASKS = {
    "Perception": (
        "existence",
        "count",
        "position",
        "color",
        "posters",
        "celebrity",
        "scene",
        "landmark",
        "artwork",
        "OCR",
    ),
    "Cognition": (
        "commonsense_reasoning",
        "numerical_calculation",
        "text_translation",
        "code_reasoning",
    ),
}
ALL_SUBTASKS = tuple(name for names in SUBTASKS.values() for name in names)
RELEASE_SOURCE = "the MME authors (branch Evaluation of their repository says how to ask for it)"
REQUEST = " Please answer yes or no."


@dataclass(frozen=True)
class Row:
    """One line of an official results file."""

    image: str
    question: str
    expected: str
    answer: str

    def line(self) -> str:
        """As the official tool reads it: an answer with a tab or a line's end would stop it."""
        return "\t".join((self.image, self.question, self.expected, one_line(self.answer))) + "\n"


def one_line(text: str) -> str:
    """The text with blanks in place of tabs and ends of lines."""
    return text.translate(dict.fromkeys(map(ord, "\t\r\n"), " "))


def parse_answer(text: str) -> str:
    """`yes`, `no` or `other`, from the first four characters alone."""
    start = text.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "other")


@dataclass(frozen=True)
class SubtaskScore:
    """The counts of one subtask; TP to FP leave out what is neither yes nor no."""

    true_positives: int
    false_negatives: int
    true_negatives: int
    false_positives: int
    num_other: int
    num_questions: int
    num_pairs_right: int  # pictures with both questions right

    @property
    def accuracy(self) -> float:
        """Share of right questions; what is neither yes nor no is wrong."""
        return (self.true_positives + self.true_negatives) / self.num_questions

    @property
    def accuracy_plus(self) -> float:
        """Share of pictures with both questions right."""
        return self.num_pairs_right / (self.num_questions // 2)

    @property
    def score(self) -> float:
        """0 to 200."""
        return self.accuracy * 100 + self.accuracy_plus * 100

    @property
    def precision(self) -> float:
        """Of the pictures called yes; 0 if there is none, as scikit-learn has it."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Of the questions whose answer is yes; 0 if there is none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def score_subtask(rows: Sequence[Row], subtask: str) -> SubtaskScore:
    """The score of rows in file order, two to a picture; ValueError where the official tool dies.

    As officially, rows are paired by their place, whatever their pictures are called.
    """
    if not rows or len(rows) % 2:
        last = f", the last about {rows[-1].image}" if rows else ""
        raise ValueError(f"MME {subtask} needs two lines for each picture, got {len(rows)}{last}")
    pairs = [(_expected(row, subtask), parse_answer(row.answer)) for row in rows]
    right = [expected == given for expected, given in pairs]
    return SubtaskScore(
        true_positives=pairs.count(("yes", "yes")),
        false_negatives=pairs.count(("yes", "no")),
        true_negatives=pairs.count(("no", "no")),
        false_positives=pairs.count(("no", "yes")),
        num_other=sum(given == "other" for _, given in pairs),
        num_questions=len(rows),
        num_pairs_right=sum(map(all, zip(right[::2], right[1::2], strict=True))),
    )


def _expected(row: Row, subtask: str) -> str:
    label = row.expected.lower()
    if label not in ("yes", "no"):
        raise ValueError(
            f"MME {subtask}, {row.image}: the true answer must be Yes or No, got {row.expected!r}"
        )
    return label


def group_total(scores: Mapping[str, SubtaskScore], group: str) -> float | None:
    """The sum over the subtasks of Perception or Cognition; None while one has no score."""
    if any(name not in scores for name in SUBTASKS[group]):
        return None
    return running_sum(scores[name].score for name in SUBTASKS[group])


def parse_rows(text: str, place: str) -> list[Row]:
    """The rows of a results file; ValueError that names the place of a broken line."""
    rows = []
    # The tool's reading turns every end of a line into \n, and \n alone ends one.
    for number, line in enumerate(text.removesuffix("\n").split("\n") if text else [], start=1):
        fields = line.split("\t")
        if len(fields) != 4:
            raise ValueError(
                f"{place}, line {number}: expected image, question, Yes|No and answer between "
                f"tabs, got {len(fields)} fields; an answer may hold no tab and no line's end"
            )
        rows.append(Row(*fields))
    return rows


def read_results(folder: Path) -> dict[str, list[Row]]:
    """The rows of every subtask in a folder for the official tool."""
    rows = {}
    for subtask in ALL_SUBTASKS:
        path = folder / f"{subtask}.txt"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; MME is scored on all of {', '.join(ALL_SUBTASKS)}"
            )
        rows[subtask] = parse_rows(read_text(path), str(path))
    return rows


# Subtask, name of the text file, question.
QuestionKey = tuple[str, str, str]


def read_truth(release: Path) -> dict[QuestionKey, str]:
    """Yes or No for every question of the official release."""
    truth = {}
    folders = sorted(path for path in need_folder(release, RELEASE_SOURCE).iterdir())
    for category in folders:
        if not category.is_dir():
            continue
        nested = (category / "images").exists()
        folder = category / "questions_answers_YN" if nested else category
        for path in sorted(need_folder(folder, RELEASE_SOURCE).glob("*.txt")):
            for number, line in enumerate(read_text(path).split("\n"), start=1):
                if line.strip():
                    question, answer = _truth_fields(line, place=f"{path}, line {number}")
                    truth[category.name, path.name, question] = answer
    return truth


def _truth_fields(line: str, *, place: str) -> tuple[str, str]:
    fields = line.strip().split("\t")
    if len(fields) != 2 or fields[1].lower() not in ("yes", "no"):
        raise ValueError(f"{place}: expected question TAB Yes or No, got {line!r}")
    return fields[0], fields[1]


def question_key(answer: AnswerLine, truth: Mapping[QuestionKey, str]) -> QuestionKey:
    """Which question of the release an answer is to; ValueError if none."""
    parts = str(answer.question_id).split("/")
    category, file = parts[0], parts[-1].split(".")[0] + ".txt"
    prompt = answer.prompt
    if SHORT_ANSWER.strip() in prompt:
        prompt = prompt.replace(SHORT_ANSWER.strip(), "").strip()
    if REQUEST.strip() not in prompt:
        # The release has two blanks before some requests.
        one, two = prompt + REQUEST, f"{prompt} {REQUEST}"
        prompt = one if (category, file, one) in truth else two
    if (category, file, prompt) not in truth:
        raise ValueError(
            f"MME has no question {prompt!r} about {answer.question_id}; answers must keep "
            "question_id and prompt of LLaVA's question file"
        )
    return category, file, prompt


def convert_answers(
    answers: Iterable[AnswerLine], truth: Mapping[QuestionKey, str]
) -> dict[str, list[Row]]:
    """The rows of each category in the order of the answers."""
    rows: dict[str, list[Row]] = {}
    for answer in answers:
        key = question_key(answer, truth)
        category, file, question = key
        rows.setdefault(category, []).append(
            Row(file, question, expected=truth[key], answer=answer.text)
        )
    return rows


def results_text(rows: Iterable[Row]) -> str:
    """A results file for the official tool."""
    return "".join(row.line() for row in rows)
