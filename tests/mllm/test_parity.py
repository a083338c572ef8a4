"""The reference model gives the official implementation's numbers (fp32, CPU)."""

import pytest
import torch
from torch import Tensor

import mllm.loss
from mllm.config import UniTokMLLMConfig
from mllm.generation import generate_codes
from mllm.loss import IGNORE_ID
from mllm.packed_attention import PACKED_SDPA
from mllm.processor import Encoded
from mllm.sampling import SamplingParams
from train.mllm_data import Packer, Sample

OFFICIAL_PLACEHOLDER = -200


def read_rows(reference: dict[str, Tensor], name: str, config: UniTokMLLMConfig) -> list[Encoded]:
    """The rows of a reference batch without their padding, each placeholder expanded to L ids."""
    rows = []
    for index, ids in enumerate(reference[f"{name}.input_ids"]):
        length = int((ids != 0).nonzero().max()) + 1
        labels = reference[f"{name}.labels"][index]
        is_drawn = int(reference[f"{name}.data_types"][index]) == 1
        codes = reference.get(f"{name}.codes.{index}", torch.empty(0, 0, 0)).transpose(1, 2)
        expanded = expand(ids[:length], labels[:length], config, is_drawn=is_drawn)
        rows.append(Encoded(*expanded, tuple(codes)))
    return rows


def read_batch(
    reference: dict[str, Tensor], name: str, config: UniTokMLLMConfig
) -> dict[str, Tensor]:
    """The same padded on the right."""
    rows = read_rows(reference, name, config)

    def pad(values: list[Tensor], fill: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)

    return {
        "input_ids": pad([row.input_ids for row in rows], 0),
        "labels": pad([row.labels for row in rows], IGNORE_ID),
        "attention_mask": pad([torch.ones_like(row.input_ids) for row in rows], 0),
        "codes": torch.stack([codes for row in rows for codes in row.pictures]),
    }


def expand(
    ids: Tensor, labels: Tensor, config: UniTokMLLMConfig, *, is_drawn: bool
) -> tuple[Tensor, Tensor]:
    new_ids, new_labels = [], []
    for token, label in zip(ids.tolist(), labels.tolist(), strict=True):
        if token == OFFICIAL_PLACEHOLDER:
            count = config.num_visual_tokens
            new_ids += [config.image_token_id] * count
            new_labels += [config.image_token_id if is_drawn else IGNORE_ID] * count
        else:
            new_ids.append(token)
            new_labels.append(label)
    return torch.tensor(new_ids), torch.tensor(new_labels)


@pytest.mark.parametrize("name", ["t2i", "i2t", "mixed"])
def test_text_logits_match_the_official_ones(reference_model, reference, name):
    batch = read_batch(reference, name, reference_model.config)
    del batch["labels"]
    with torch.no_grad():
        logits = reference_model(**batch).logits
    is_token = batch["attention_mask"].bool()
    expected = reference[f"{name}.logits"]
    assert logits.shape == expected.shape
    difference = (logits - expected)[is_token].abs().max()
    # Measured 3.4e-6.
    assert difference < 1e-4, difference


@pytest.mark.parametrize("name", ["t2i", "i2t", "mixed"])
def test_losses_match_the_official_ones(reference_model, reference, name):
    batch = read_batch(reference, name, reference_model.config)
    with torch.no_grad():
        loss = reference_model(**batch).loss
    difference = abs(loss - reference[f"{name}.loss"][0])
    # Measured 1.9e-6.
    assert difference < 1e-5, difference


@pytest.mark.parametrize("chunks", [None, (3, 4)], ids=["whole", "chunked"])
@pytest.mark.parametrize("name", ["t2i", "i2t", "mixed"])
def test_losses_of_packed_rows_match_the_official_ones(
    reference_model, reference, name, chunks, monkeypatch
):
    if chunks is not None:
        monkeypatch.setattr(mllm.loss, "TEXT_CHUNK", chunks[0])
        monkeypatch.setattr(mllm.loss, "IMAGE_CHUNK", chunks[1])
    rows = read_rows(reference, name, reference_model.config)
    pack = Packer.for_config(reference_model.config)([Sample(0, "", row) for row in rows])
    del pack["skipped"]
    attention = reference_model.config._attn_implementation
    reference_model.set_attn_implementation(PACKED_SDPA)
    loss = reference_model(**pack).loss
    reference_model.set_attn_implementation(attention)
    difference = abs(loss.detach() - reference[f"{name}.loss"][0])
    # Measured 0 on the machine that wrote this test.
    assert difference < 1e-5, difference


def test_embeddings_of_codes_match_the_official_ones(reference_model, reference):
    codes = reference["embedder.codes"].transpose(1, 2)
    with torch.no_grad():
        difference = (
            (reference_model.visual_embedder(codes) - reference["embedder.out"]).abs().max()
        )
    # Measured 0 on the machine that wrote this test.
    assert difference < 1e-5, difference


def test_logits_of_the_visual_head_match_the_official_ones(reference_model, reference):
    hidden = reference["head.hidden"].squeeze(1)
    with torch.no_grad():
        logits = reference_model.visual_head(hidden, reference["head.codes"])
    difference = (logits - reference["head.logits"]).abs().max()
    # Measured 3.4e-6.
    assert difference < 1e-4, difference


@pytest.mark.parametrize(
    ("name", "guidance_scale", "projection"),
    [
        ("gen.exact.cfg5", 5, "cached"),
        ("gen.exact.cfg1", 1, "cached"),
        ("gen.single.cfg5", 5, "single"),
    ],
)
def test_greedy_pictures_match_the_official_ones(
    reference_model, reference, name, guidance_scale, projection
):
    codes = generate_codes(
        reference_model,
        reference[f"{name}.input_ids"],
        reference[f"{name}.attention_mask"],
        sampling=SamplingParams(guidance_scale=guidance_scale, temperature=0),
        projection=projection,
    )
    assert torch.equal(codes.transpose(1, 2), reference[f"{name}.codes"])


@pytest.mark.parametrize("use_cache", [True, False])
def test_the_greedy_answer_about_a_picture_matches_the_official_one(
    reference_model, reference, use_cache
):
    ids, _ = expand(
        reference["chat.input_ids"],
        reference["chat.input_ids"],
        reference_model.config,
        is_drawn=False,
    )
    answer = reference_model.generate(
        input_ids=ids[None],
        codes=reference["chat.codes"].transpose(1, 2),
        max_new_tokens=len(reference["chat.answer"]),
        do_sample=False,
        use_cache=use_cache,
    )
    assert torch.equal(answer[0, len(ids) :], reference["chat.answer"])
