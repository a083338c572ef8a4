"""Samples of a pack do not see each other, on the path that a stage takes.

Shapes: T length of a sample, N learned positions, K codebooks, V vocabulary or codebook size.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mllm.model import UniTokMLLM
from mllm.packed_attention import PACKED_SDPA
from mllm.pipeline import Pipeline
from mllm.processor import IGNORED_LABEL, Encoded
from tests.mllm.tiny_pipeline import build_tiny_pipeline
from tests.train.tiny_shards import build_rows
from train.mllm_data import Packer, RowConfig, RowEncoder, Sample
from train.stage_config import StageConfig

DEFAULT_ATTENTION = StageConfig.model_fields["attention"].default
ATTENTIONS = sorted({DEFAULT_ATTENTION, PACKED_SDPA, "sdpa", "eager"})
CLOSE = {"rtol": 0, "atol": 2e-5}  # float32 sums in another order; measured 2.4e-6


@pytest.fixture
def pipeline() -> Pipeline:
    pipeline = build_tiny_pipeline()
    pipeline.model.train()
    return pipeline


def encode_row(pipeline: Pipeline, task: str) -> Encoded:
    """One row as a stage writes it; a chat reads one picture and draws another."""
    encoder = RowEncoder(pipeline.processor, RowConfig(max_length=96, unconditional_share=0))
    (row,) = build_rows(pipeline, task, count=1, seed=len(task))
    return encoder.encode(row, random.Random(0))


def pack(model: UniTokMLLM, rows: Sequence[Encoded]) -> dict[str, Any]:
    """What the model is given for these rows."""
    batch = Packer.for_config(model.config)([Sample(0, "", row) for row in rows])
    assert batch.pop("skipped") == []
    return dict(batch)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a sample of a pack looked like inside the model."""

    positions: Tensor  # (T,)
    text_logits: Tensor  # (N, V)
    image_logits: Tensor  # (N, K, V)


def look_inside(model: UniTokMLLM, rows: Sequence[Encoded], **changes: Any) -> list[Seen]:
    """Positions that the decoder got, and logits that the loss was made of, for each sample."""
    got: dict[str, Tensor] = {}
    decoder, lm_head, visual_head = model.decoder, model.lm_head, model.visual_head
    handles = [
        decoder.register_forward_pre_hook(
            lambda _, __, kwargs: got.update(positions=kwargs["position_ids"][0]), with_kwargs=True
        ),
        lm_head.register_forward_hook(lambda _, __, output: got.update(text=output)),
        visual_head.register_forward_hook(lambda _, __, output: got.update(image=output)),
    ]
    model(**pack(model, rows) | changes)
    for handle in handles:
        handle.remove()
    learned = [row.labels[1:] for row in rows]
    is_drawn = [labels == model.config.image_token_id for labels in learned]
    num_drawn = [int(each.sum()) for each in is_drawn]
    num_learned = [int((labels != IGNORED_LABEL).sum()) for labels in learned]
    num_text = [total - drawn for total, drawn in zip(num_learned, num_drawn, strict=True)]
    parts = (
        got["positions"].split([len(row) for row in rows]),
        got["text"].split(num_text),
        got["image"].split(num_drawn),
    )
    return [Seen(*part) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_another_sample_in_the_middle_changes_no_other_sample_of_its_pack(
    pipeline: Pipeline, attention: str
) -> None:
    model = pipeline.model
    model.set_attn_implementation(attention)
    first, last = encode_row(pipeline, "text_to_image"), encode_row(pipeline, "chat")
    middles = [encode_row(pipeline, task) for task in ("text", "image_to_text", "chat")]
    assert len({len(middle) for middle in middles}) == 3
    assert [len(middle.pictures) for middle in middles] == [0, 1, 2]
    expected, *changed = (look_inside(model, [first, middle, last]) for middle in middles)
    for seen in changed:
        for number in (0, 2):
            assert torch.equal(seen[number].positions, expected[number].positions)
            for name in ("text_logits", "image_logits"):
                got, wanted = (getattr(each[number], name) for each in (seen, expected))
                assert len(wanted)
                torch.testing.assert_close(got, wanted, **CLOSE)


def test_samples_that_do_see_each_other_would_be_noticed(pipeline: Pipeline) -> None:
    """As one long row, with the positions of a pack, the last sample depends on the others."""
    model = pipeline.model
    rows = [encode_row(pipeline, task) for task in ("text_to_image", "text", "chat")]
    others = [rows[0], encode_row(pipeline, "image_to_text"), rows[2]]

    def last_of(rows: Sequence[Encoded]) -> Seen:
        positions = torch.cat([torch.arange(len(row)) for row in rows])[None]
        # Without a mask of its own, transformers would know a pack by its positions.
        mask = torch.ones_like(positions)
        changes = {"sample_lengths": None, "attention_mask": mask, "position_ids": positions}
        return look_inside(model, rows, **changes)[-1]

    for name in ("text_logits", "image_logits"):
        got, wanted = (getattr(last_of(each), name) for each in (rows, others))
        assert (got - wanted).abs().max() > 0.1, name


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_packed_samples_give_the_losses_of_separate_rows(
    pipeline: Pipeline, attention: str
) -> None:
    model = pipeline.model
    model.set_attn_implementation(attention)
    rows = [encode_row(pipeline, task) for task in ("chat", "text_to_image", "image_to_text")]
    terms = model(**pack(model, rows)).loss_terms
    padded = pipeline.processor.pad(rows, side="right")
    expected = model(
        input_ids=padded.input_ids,
        attention_mask=padded.attention_mask,
        labels=padded.labels,
        codes=pack(model, rows)["codes"],
    ).loss_terms
    assert (terms.num_text, terms.num_image) == (expected.num_text, expected.num_image)
    # Measured 2e-7 relative.
    torch.testing.assert_close(terms.text, expected.text, rtol=1e-5, atol=0)
    torch.testing.assert_close(terms.image, expected.image, rtol=1e-5, atol=0)


def test_lengths_that_do_not_fill_the_pack_are_refused(pipeline: Pipeline) -> None:
    model = pipeline.model
    model.set_attn_implementation(PACKED_SDPA)
    packed = pack(model, [encode_row(pipeline, task) for task in ("text", "chat")])
    packed["sample_lengths"][0] -= 1
    with pytest.raises((ValueError, RuntimeError)):
        model(**packed)
