"""How likely given answers are: what ranks the options of a multiple-choice question.

The answer stands behind its question as it would in training, with the eos that ends it, and the
model reads both in one pass.

Shapes: B rows, T ids, A ids of the longest answer, V text vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mllm.batch_answers import BATCH_REMEDY, encode_pictures, errors_name
from mllm.devices import explain_out_of_memory
from mllm.messages import Message
from mllm.pipeline import Pipeline
from mllm.processor import IGNORED_LABEL, Encoded, Processor


@dataclass(frozen=True)
class Likelihood:
    """Of one answer to one question."""

    log_probability: float  # of all its tokens, eos included; natural logarithm
    num_tokens: int
    is_greedy: bool  # whether the model, asked to answer, would write exactly this

    @property
    def mean_loss(self) -> float:
        """Minus the log-probability per token: lower is likelier, whatever the length."""
        return -self.log_probability / self.num_tokens


def build_answered(
    processor: Processor, messages: Sequence[Message], answer: str, *, name: str
) -> Encoded:
    """The row of a conversation with an answer, whose tokens alone are labelled."""
    with errors_name(name):
        row = processor.encode_chat([*messages, {"role": "assistant", "content": answer}])
        processor.check_length(row)
    num_before = len(processor.encode_chat(messages))
    labels = row.labels.clone()
    labels[:num_before] = IGNORED_LABEL  # earlier answers of the conversation
    return Encoded(row.input_ids, labels, row.pictures)


def measure_answers(
    pipeline: Pipeline, rows: Sequence[Encoded], *, batch_size: int
) -> list[Likelihood]:
    """Likelihoods of the answers in rows of `build_answered`, `batch_size` rows at a time."""
    measured: list[Likelihood] = []
    for start in range(0, len(rows), batch_size):
        measured += _measure_batch(pipeline, rows[start : start + batch_size])
    return measured


def _measure_batch(pipeline: Pipeline, rows: Sequence[Encoded]) -> list[Likelihood]:
    """Rows are padded on the left, so that all answers end together and few logits are needed."""
    batch = pipeline.processor.pad(rows, side="left")
    num_kept = int((batch.labels != IGNORED_LABEL).sum(dim=1).max()) + 1
    mask_BT = batch.attention_mask.to(pipeline.device)
    with torch.inference_mode(), explain_out_of_memory("measuring answers", BATCH_REMEDY):
        logits_BAV = pipeline.model(
            batch.input_ids.to(pipeline.device),
            encode_pictures(pipeline, batch.pictures),
            attention_mask=mask_BT,
            position_ids=(mask_BT.cumsum(dim=1) - 1).clamp(min=0),
            logits_to_keep=num_kept,
            use_cache=False,
        ).logits[:, :-1]
        labels_BA = batch.labels[:, 1 - num_kept :].to(pipeline.device)
        return _read_logits(logits_BAV.float(), labels_BA)


def _read_logits(logits_BAV: Tensor, labels_BA: Tensor) -> list[Likelihood]:
    is_answer_BA = labels_BA != IGNORED_LABEL
    targets_BA1 = labels_BA.clamp(min=0).unsqueeze(-1)
    log_probabilities_BA = logits_BAV.log_softmax(dim=-1).gather(-1, targets_BA1).squeeze(-1)
    sums_B = log_probabilities_BA.double().masked_fill(~is_answer_BA, 0).sum(dim=1)
    is_greedy_B = ((logits_BAV.argmax(dim=-1) == labels_BA) | ~is_answer_BA).all(dim=1)
    counts_B = is_answer_BA.sum(dim=1)
    return [
        Likelihood(*values)
        for values in zip(sums_B.tolist(), counts_B.tolist(), is_greedy_B.tolist(), strict=True)
    ]
