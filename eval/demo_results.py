"""What a run of the demo showed, and how that compares with the stored full scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.demo_items import DESCRIPTION, ChatDrawing, Conversation, DrawnPrompt, Reconstruction
from unitok.files import read_json

# Written by `python -m eval.nano`; in a checkout it lies beside the packages.
STORED_SCORES = Path(__file__).resolve().parent.parent / "docs" / "results" / "nano.json"
ALL = "all"


@dataclass(frozen=True)
class Demo:
    """Everything that one run made."""

    seed: int
    model_fingerprint: str
    conversations: Sequence[Conversation]
    prompts: Sequence[DrawnPrompt]
    chat_drawing: ChatDrawing
    reconstructions: Sequence[Reconstruction]
    seconds: dict[str, float]  # of each stage
    peak_memory_gib: float


@dataclass(frozen=True)
class StoredRate:
    """A full score over many held-out items, and the same with codes or prompts shuffled."""

    num_items: int
    score: float
    shuffled_score: float


@dataclass(frozen=True)
class StoredScores:
    """Scores that were measured before, with what is needed to measure them again."""

    command: str
    date: str
    model_fingerprint: str
    rates: dict[str, StoredRate]  # overall, by the names of `compare_scores`

    def origin(self, model_fingerprint: str) -> str:
        """Where the numbers come from, and a warning when they are another model's."""
        text = f"stored scores, measured on {self.date} with: {self.command}"
        if self.model_fingerprint == model_fingerprint:
            return text
        return f"{text} (of other weights: {self.model_fingerprint}, not {model_fingerprint})"


@dataclass(frozen=True)
class ScoreRow:
    """One score of this run beside the stored one."""

    name: str
    num_right: int
    num_items: int
    stored: StoredRate | None

    @property
    def live(self) -> str:
        return f"{self.num_right} of {self.num_items}"

    @property
    def full(self) -> str:
        """The stored score in words; "-" without one."""
        if self.stored is None:
            return "-"
        return f"{self.stored.score:.1%} of {self.stored.num_items}"

    @property
    def shuffled(self) -> str:
        return "-" if self.stored is None else f"{self.stored.shuffled_score:.1%}"


def load_stored_scores(path: Path = STORED_SCORES) -> StoredScores | None:
    """The scores in a file of `eval.nano`; None if there is no file."""
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        rates = {
            name: StoredRate(**content[name][ALL])
            for name in ("questions", "drawings", "reconstruction")
        }
        return StoredScores(
            content["command"], content["date"], content["model_fingerprint"], rates
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} holds no scores of ours ({error}); write it again with: "
            "python -m eval.nano -o docs/results/nano.json"
        ) from error


def compare_scores(demo: Demo, stored: StoredScores | None) -> list[ScoreRow]:
    """How much of this run was right, beside the full scores."""
    turns = [turn for conversation in demo.conversations for turn in conversation.turns]
    drawings = [drawing for prompt in demo.prompts for drawing in prompt.drawings]
    outcomes = {
        "questions": [turn.right for turn in turns if turn.kind != DESCRIPTION],
        "descriptions": [turn.right for turn in turns if turn.kind == DESCRIPTION],
        "drawings": [drawing.right for drawing in drawings],
        "reconstruction": [each.right for each in demo.reconstructions],
    }
    return [
        ScoreRow(name, sum(right), len(right), stored.rates.get(name) if stored else None)
        for name, right in outcomes.items()
    ]
