"""What a training run writes down: losses by source, speed, and samples that were left out.

A checkpoint holds what has been counted since the last line, and a resumed run cuts its files back
to the step of its checkpoint: in the end they say the same as those of an undisturbed run.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from unitok.files import atomic_write, read_json

LOG_FILE = "log.jsonl"
SKIPPED_FILE = "skipped_samples.jsonl"
COUNTS_FILE = "log_counts.json"  # in a checkpoint
TRAINER_STATE_FILE = "trainer_state.json"  # in a checkpoint, written by transformers
TERMS = ("text", "image", "num_text", "num_image")  # columns of a LossTerms.by_group


@dataclass(frozen=True, eq=False)
class LogCounts:
    """Over all processes, since the last line of the log."""

    sums: Tensor  # (sources, 4) float64, the columns of TERMS
    num_skipped: int
    tokens_per_second: float


class RunLog:
    """Counts of this process, and the files of the run folder."""

    def __init__(self, folder: Path, source_names: Sequence[str]) -> None:
        self.folder = folder
        self.source_names = list(source_names)
        self.sums = torch.zeros(len(self.source_names), len(TERMS), dtype=torch.float64)
        self.num_skipped = 0
        self.num_tokens = 0
        self.started = time.monotonic()  # of the time that the tokens took

    def add(self, by_group: Tensor, *, num_tokens: int) -> None:
        """`by_group`: (up to sources, 4), see LossTerms."""
        self.sums = self.sums.to(by_group.device)
        self.sums[: len(by_group)] += by_group
        self.num_tokens += num_tokens

    def note_skipped(self, skipped: Sequence[tuple[int, str, str]], *, step: int) -> None:
        """Count and list samples of a step that were left out; every process does."""
        self.num_skipped += len(skipped)
        self.list_skipped(skipped, names=self.source_names, step=step)

    def list_skipped(
        self, skipped: Sequence[tuple[int, str, str]], *, names: Sequence[str], step: int
    ) -> None:
        """Write down samples (source, id, reason) that were left out, by their sources' names."""
        if not skipped:
            return
        with (self.folder / SKIPPED_FILE).open("a", encoding="utf-8") as file:
            for source, row_id, reason in skipped:
                entry = {"source": names[source], "id": row_id, "reason": reason}
                file.write(json.dumps({"step": step, **entry}) + "\n")

    def write(self, line: Mapping[str, Any]) -> None:
        with (self.folder / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(_as_json(line))

    def count(self, accelerator: Accelerator) -> LogCounts:
        """What all processes counted; all take part."""
        seconds = time.monotonic() - self.started
        own = torch.tensor([self.num_tokens, self.num_skipped], device=self.sums.device)
        sums = accelerator.reduce(self.sums.clone(), reduction="sum")
        num_tokens, num_skipped = accelerator.reduce(own, reduction="sum").tolist()
        return LogCounts(sums, num_skipped, num_tokens / seconds)

    def clear(self) -> None:
        """Begin the next line."""
        self.sums.zero_()
        self.num_skipped, self.num_tokens = 0, 0
        self.started = time.monotonic()

    def leave_out(self, seconds: float) -> None:
        """Time that was spent on something else than the tokens."""
        self.started += seconds

    def save(self, counts: LogCounts, checkpoint: Path) -> None:
        with atomic_write(checkpoint / COUNTS_FILE) as temporary:
            values = {"sums": counts.sums.tolist(), "num_skipped": counts.num_skipped}
            temporary.write_text(json.dumps(values) + "\n")

    def restore(self, checkpoint: Path | None) -> None:
        """Go back to a checkpoint, or to the start; for one process, which then counts for all."""
        history, step = [], 0
        if checkpoint is not None:
            state = read_json(checkpoint / TRAINER_STATE_FILE)
            history, step = state["log_history"], state["global_step"]
            counts = read_json(checkpoint / COUNTS_FILE)
            self.sums = torch.tensor(counts["sums"], dtype=torch.float64)
            self.num_skipped = counts["num_skipped"]
        _rewrite(self.folder / LOG_FILE, map(_as_json, history))
        skipped = self.folder / SKIPPED_FILE
        if skipped.exists():
            cut_back(skipped, step)


def cut_back(path: Path, step: int) -> None:
    """Keep the lines of a JSONL file up to a step."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    _rewrite(path, (line for line in lines if _step_of(line) <= step))


def mean_losses(sums: Tensor, source_names: Sequence[str]) -> dict[str, float]:
    """`loss/text`, `loss/image` and the same of each source from sums (sources, 4)."""
    suffixes = ["", *(f"/{name}" for name in source_names)]
    rows = [sums.sum(dim=0).tolist(), *sums.tolist()]
    means = {}
    for suffix, (text, image, num_text, num_image) in zip(suffixes, rows, strict=True):
        if num_text:
            means[f"loss/text{suffix}"] = text / num_text
        if num_image:
            means[f"loss/image{suffix}"] = image / num_image
    return means


def mean_loss(sums: Tensor) -> float:
    """Text and image together, by sums (sources, 4); 0 where nothing was learned."""
    text, image, num_text, num_image = sums.sum(dim=0).tolist()
    return float((text + image) / max(1, num_text + num_image))


def _as_json(line: Mapping[str, Any]) -> str:
    """The step first, where a reader looks for it."""
    return json.dumps({"step": line["step"], **line}) + "\n"


def _step_of(line: str) -> float:
    """The step of a line; one that a lost machine left half written belongs to none."""
    try:
        return float(json.loads(line)["step"])
    except ValueError:
        return float("inf")


def _rewrite(path: Path, lines: Iterable[str]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")
