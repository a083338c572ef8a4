"""The reference model gives the official implementation's numbers (fp32, CPU)."""

import pytest
import torch
from torch import Tensor

from mllm.config import UniTokMLLMConfig
from mllm.generation import generate_codes
from mllm.loss import IGNORE_ID
from mllm.packed_attention import PACKED_SDPA
from mllm.sampling import SamplingParams

OFFICIAL_PLACEHOLDER = -200


def read_batch(
    reference: dict[str, Tensor], name: str, config: UniTokMLLMConfig
) -> dict[str, Tensor]:
    """A reference batch with each placeholder expanded to L ids, padded on the right."""
    codes = {}
    for key in reference:
        if key.startswith(f"{name}.codes."):
            codes[int(key.rsplit(".", 1)[1])] = reference[key].transpose(1, 2)
    rows = []
    for index, ids in enumerate(reference[f"{name}.input_ids"]):
        labels = reference[f"{name}.labels"][index]
        length = int((ids != 0).nonzero().max()) + 1
        is_drawn = int(reference[f"{name}.data_types"][index]) == 1
        rows.append(expand(ids[:length], labels[:length], config, is_drawn=is_drawn))
    lengths = [len(ids) for ids, _ in rows]

    def pad(values: list[Tensor], fill: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(values, batch_first=True, padding_value=fill)

    return {
        "input_ids": pad([ids for ids, _ in rows], 0),
        "labels": pad([labels for _, labels in rows], IGNORE_ID),
        "attention_mask": pad([torch.ones(length, dtype=torch.int64) for length in lengths], 0),
        "codes": torch.cat([codes[index] for index in sorted(codes)]),
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


@pytest.mark.parametrize("name", ["t2i", "i2t", "mixed"])
def test_losses_of_packed_rows_match_the_official_ones(reference_model, reference, name):
    batch = read_batch(reference, name, reference_model.config)
    is_token = batch["attention_mask"].bool()
    labels = batch["labels"].clone()
    labels[:, 0] = IGNORE_ID  # in a pack another row's last id stands before it
    attention = reference_model.config._attn_implementation
    reference_model.set_attn_implementation(PACKED_SDPA)
    with torch.no_grad():
        loss = reference_model(
            input_ids=batch["input_ids"][is_token][None],
            labels=labels[is_token][None],
            codes=batch["codes"],
            sample_lengths=is_token.sum(dim=1).tolist(),
        ).loss
    reference_model.set_attn_implementation(attention)
    difference = abs(loss - reference[f"{name}.loss"][0])
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
