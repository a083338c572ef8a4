"""Rows of code shards as packed batches for the MLLM.

Sample i of a run is a function of its number alone: the mixture names its row, and what is random
about it (which caption, whether the prompt is left out) is drawn from the number.

Shapes: T packed length, P pictures, L visual tokens, K codebooks.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from mllm.config import UniTokMLLMConfig
from mllm.processor import IGNORED_LABEL, Encoded, Processor, codes_of
from mllm.text_tokenizer import EOS_ID
from train.code_shards import CodeRow, CodeShards
from train.config import RunConfig
from train.mixture import MixturePlan, plan_mixture


class MixtureSource(RunConfig):
    """One folder of code shards in a mixture."""

    name: str
    codes: str  # a folder of train.extract_codes
    source: str | None = None  # one of the folder's sources; None: all of them
    weight: float | None = None  # its share of the samples, in any unit; None: its number of rows
    held_out: int = Field(default=0, ge=0)  # its last rows: for validation, never for training


class RowConfig(RunConfig):
    """How rows are written."""

    max_length: int = Field(default=2048, gt=1)  # ids; longer samples are left out and listed
    unconditional_share: float = Field(default=0.1, ge=0, le=1)  # of drawings, for guidance
    bare_caption_share: float = Field(default=0.0, ge=0, le=1)  # of captions without picture marks


@dataclass(frozen=True, eq=False)
class Sample:
    """One encoded sample, or why there is none; without either it only fills a batch up."""

    source: int
    row_id: str
    encoded: Encoded | None
    problem: str | None = None


class PackedBatch(TypedDict):
    """Arguments of `UniTokMLLM.forward`, and what was left out."""

    input_ids: Tensor  # (1, T) int64
    labels: Tensor  # (1, T) int64
    codes: Tensor  # (P, L, K) int64
    groups: Tensor  # (1, T) int64, the number of each position's source
    sample_lengths: list[int]
    skipped: list[tuple[int, str, str]]  # source, id, reason


class RowEncoder:
    """Writes a row for the model, by its task."""

    def __init__(self, processor: Processor, config: RowConfig) -> None:
        self.processor = processor
        self.config = config

    def encode(self, row: CodeRow, rng: random.Random) -> Encoded:
        """Raises ValueError for a row that cannot be learned from."""
        for picture in row.pictures:
            if len(picture.codes) != self.processor.num_visual_tokens:
                raise ValueError(
                    f"a picture has {len(picture.codes)} visual tokens, the model reads "
                    f"{self.processor.num_visual_tokens}"
                )
        check_row(row)
        encoded = self._encode_task(row, rng)
        if len(encoded) > self.config.max_length:
            raise ValueError(f"{len(encoded)} ids, at most {self.config.max_length} are allowed")
        return encoded

    def _encode_task(self, row: CodeRow, rng: random.Random) -> Encoded:
        if row.task == "chat":
            return self.processor.encode_chat(with_codes(row))
        text = rng.choice(row.texts)
        if row.task == "text":
            return self.processor.encode_text(text)
        picture = row.pictures[0].codes
        if row.task == "text_to_image":
            is_unconditional = rng.random() < self.config.unconditional_share
            prompt = None if is_unconditional else text
            return self.processor.encode_text_to_image(prompt, picture=picture)
        form: Literal["bare", "marked"] = (
            "bare" if rng.random() < self.config.bare_caption_share else "marked"
        )
        return self.processor.encode_caption(picture, text, form=form)


def check_row(row: CodeRow) -> None:
    """Raise ValueError for a row that lacks what its task needs."""
    if row.task == "chat":
        parts = [part for message in row.messages or [] for part in message["content"]]
        needed = sum(part["type"] == "image" for part in parts)
        if not parts:
            raise ValueError("a chat without messages")
    else:
        needed = 0 if row.task == "text" else 1
        if not any(row.texts):
            raise ValueError("no text")
    if needed != len(row.pictures):
        raise ValueError(f"{needed} pictures are spoken of, {len(row.pictures)} are there")


def with_codes(row: CodeRow) -> list[dict[str, Any]]:
    """A chat's messages with the codes of each picture in its part."""
    pictures = iter(row.pictures)
    return [
        {
            "role": message["role"],
            "content": [
                {"type": "image", "codes": next(pictures).codes}
                if part["type"] == "image"
                else {"type": "text", "text": part["text"]}
                for part in message["content"]
            ],
        }
        for message in row.messages or []
    ]


@dataclass(frozen=True, eq=False)
class SourceRows:
    """Some rows of a source."""

    shards: CodeShards
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, index: int) -> CodeRow:
        return self.shards.row(self.numbers[index])


class MixtureDataset(Dataset[Sample]):
    """`self[i]` -> sample i of a run."""

    def __init__(
        self,
        sources: Sequence[SourceRows],
        plan: MixturePlan,
        encoder: RowEncoder,
        *,
        seed: int,
        multiple_of: int = 1,
    ) -> None:
        """Filled up with empty samples to a multiple: processes would else see some twice."""
        self.sources = sources
        self.plan = plan
        self.encoder = encoder
        self.seed = seed
        self.num_filled = -(-len(plan) // multiple_of) * multiple_of

    def __len__(self) -> int:
        return self.num_filled

    def __getitem__(self, index: int) -> Sample:
        if index >= len(self.plan):
            return Sample(0, "", None)
        source = int(self.plan.sources[index])
        row = self.sources[source].row(int(self.plan.rows[index]))
        try:
            encoded = self.encoder.encode(row, random.Random(f"{self.seed}:{index}"))
        except ValueError as error:
            return Sample(source, row.id, None, str(error))
        return Sample(source, row.id, encoded)


def rows_to_learn(source: MixtureSource, num_rows: int) -> range:
    """All but those that are held out."""
    if num_rows <= source.held_out:
        raise ValueError(
            f"source {source.name} has {num_rows} rows and held_out is {source.held_out}; leave "
            "some to learn from"
        )
    return range(num_rows - source.held_out)


def rows_to_validate(source: MixtureSource, num_rows: int) -> range:
    """Those that are held out; all of a source that is there for validation alone."""
    return range(num_rows - source.held_out, num_rows) if source.held_out else range(num_rows)


def open_mixture(
    sources: Sequence[MixtureSource],
    encoder: RowEncoder,
    *,
    choose_rows: Callable[[MixtureSource, int], range] = rows_to_learn,
    tokenizer_fingerprint: str,
    num_samples: int | None,
    seed: int,
    multiple_of: int = 1,
) -> MixtureDataset:
    """Open the shards of every source and plan the run's samples; None: one epoch."""
    opened = []
    for each in sources:
        shards = CodeShards(
            each.codes, tokenizer_fingerprint=tokenizer_fingerprint, source=each.source
        )
        opened.append(SourceRows(shards, choose_rows(each, len(shards))))
    plan = plan_mixture(
        [len(each) for each in opened],
        [source.weight for source in sources],
        names=[source.name for source in sources],
        num_samples=num_samples,
        seed=seed,
    )
    return MixtureDataset(opened, plan, encoder, seed=seed, multiple_of=multiple_of)


class Packer:
    """Collates samples into one packed row. Without any learnable sample the row has no labels."""

    def __init__(self, *, num_visual_tokens: int, num_codebooks: int, filler_id: int) -> None:
        """`filler_id` is the one id of a pack whose samples were all left out."""
        self.num_visual_tokens = num_visual_tokens
        self.num_codebooks = num_codebooks
        self.filler_id = filler_id

    @classmethod
    def for_config(cls, config: UniTokMLLMConfig) -> "Packer":
        """The packer of a model."""
        return cls(
            num_visual_tokens=config.num_visual_tokens,
            num_codebooks=config.num_codebooks,
            filler_id=EOS_ID,
        )

    def __call__(self, samples: Sequence[Sample]) -> PackedBatch:
        rows = [(sample.source, sample.encoded) for sample in samples if sample.encoded is not None]
        skipped = [
            (sample.source, sample.row_id, sample.problem)
            for sample in samples
            if sample.problem is not None
        ]
        if not rows:
            ids = torch.tensor([self.filler_id])
            rows = [(0, Encoded(ids, torch.full_like(ids, IGNORED_LABEL), ()))]
        lengths = [len(row) for _, row in rows]
        pictures = [codes_of(picture) for _, row in rows for picture in row.pictures]
        no_pictures = torch.zeros(0, self.num_visual_tokens, self.num_codebooks, dtype=torch.int64)
        sources = torch.tensor([source for source, _ in rows])
        return PackedBatch(
            input_ids=torch.cat([row.input_ids for _, row in rows]).unsqueeze(0),
            labels=torch.cat([without_first_label(row.labels) for _, row in rows]).unsqueeze(0),
            codes=torch.stack(pictures) if pictures else no_pictures,
            groups=sources.repeat_interleave(torch.tensor(lengths)).unsqueeze(0),
            sample_lengths=lengths,
            skipped=skipped,
        )


def without_first_label(labels: Tensor) -> Tensor:
    """Labels (T,) for a pack, in which the first id must not follow from another sample's last."""
    labels = labels.clone()
    labels[0] = IGNORED_LABEL
    return labels
