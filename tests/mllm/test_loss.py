import pytest
import torch
import torch.nn.functional as F

from mllm import loss as loss_module
from mllm.loss import IGNORE_ID, LossTerms, count_learned, losses_in_chunks
from tests.mllm.conftest import build_batch


def test_the_loss_is_the_mean_over_text_tokens_and_sub_codes(tiny_model):
    batch = build_batch(tiny_model.config)
    terms = tiny_model(**batch).loss_terms
    hidden = tiny_model.decoder(
        inputs_embeds=tiny_model.embed(batch["input_ids"], batch["codes"]),
        attention_mask=batch["attention_mask"],
    ).last_hidden_state
    text, image = torch.tensor(0.0), torch.tensor(0.0)
    codes = batch["codes"].flatten(0, 1)
    for row, column in (batch["labels"] != IGNORE_ID).nonzero().tolist():
        if column == 0:
            continue
        label, before = batch["labels"][row, column], hidden[row, column - 1]
        if label != tiny_model.config.image_token_id:
            text += F.cross_entropy(tiny_model.lm_head(before), label)
            continue
        is_visual = batch["input_ids"].flatten() == tiny_model.config.image_token_id
        index = int(is_visual[: row * batch["labels"].shape[1] + column].sum())
        logits = tiny_model.visual_head(before[None], codes[index][None])[0]
        image += F.cross_entropy(logits, codes[index], reduction="sum")
        image += 5e-5 * (logits.max(dim=-1).values ** 2).sum()
    # Measured 3e-6 relative.
    torch.testing.assert_close(terms.text, text, rtol=1e-5, atol=0)
    torch.testing.assert_close(terms.image, image, rtol=1e-5, atol=0)
    torch.testing.assert_close(terms.total, (text + image) / terms.num_learned)


def test_counts_are_those_of_the_labels(tiny_model):
    batch = build_batch(tiny_model.config)
    terms = tiny_model(**batch).loss_terms
    # One drawn picture of 6 visual tokens and 4 sub-codes; begin-of-image, end-of-image and eos
    # of its row; three words of the other row.
    assert (terms.num_text, terms.num_image) == (6, 24)
    assert count_learned(
        batch["labels"], image_token_id=tiny_model.config.image_token_id, num_codebooks=4
    ) == (6, 24)


def test_chunks_change_neither_loss_nor_gradient(tiny_model, monkeypatch):
    batch = build_batch(tiny_model.config)

    def run() -> tuple[torch.Tensor, list[torch.Tensor]]:
        tiny_model.zero_grad()
        loss = tiny_model(**batch).loss
        loss.backward()
        return loss, [parameter.grad.clone() for parameter in tiny_model.parameters()]

    whole, whole_gradients = run()
    monkeypatch.setattr(loss_module, "TEXT_CHUNK", 2)
    monkeypatch.setattr(loss_module, "IMAGE_CHUNK", 4)
    chunked, chunked_gradients = run()
    torch.testing.assert_close(chunked, whole)
    torch.testing.assert_close(chunked_gradients, whole_gradients)


def test_no_more_logits_than_a_chunk_exist_at_a_time(tiny_model, monkeypatch):
    batch = build_batch(tiny_model.config)
    sizes = {"lm_head": [], "visual_head": []}
    for name, rows in sizes.items():
        head = getattr(tiny_model, name)
        head.register_forward_hook(lambda _, inputs, __, rows=rows: rows.append(len(inputs[0])))
    monkeypatch.setattr(loss_module, "TEXT_CHUNK", 4)
    monkeypatch.setattr(loss_module, "IMAGE_CHUNK", 5)
    loss = tiny_model(**batch).loss
    # Six learned text ids and six visual tokens.
    assert sizes == {"lm_head": [4, 2], "visual_head": [5, 1]}
    loss.backward()
    # The backward pass computes each chunk again, which the forward pass has not kept.
    assert {name: sorted(rows[2:]) for name, rows in sizes.items()} == {
        "lm_head": [2, 4],
        "visual_head": [1, 5],
    }


def test_no_rows_give_zero_and_still_reach_the_layer():
    layer = torch.nn.Linear(3, 5)

    def chunk_loss(rows, targets):
        return F.cross_entropy(layer(rows), targets, reduction="none")

    empty = losses_in_chunks(
        chunk_loss, torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), chunk_size=4
    )
    empty.sum().backward()
    assert empty.sum() == 0
    assert torch.equal(layer.weight.grad, torch.zeros(5, 3))


def test_batches_of_a_step_share_one_denominator(tiny_model):
    batch = build_batch(tiny_model.config)
    together = tiny_model(**batch).loss_terms
    codes = iter(batch["codes"])
    alone = []
    for index in range(2):
        row = {key: batch[key][index : index + 1] for key in batch if key != "codes"}
        alone.append(tiny_model(**row, codes=next(codes)[None]).loss_terms)
    total = sum(terms.text + terms.image for terms in alone)
    count = sum(terms.num_learned for terms in alone)
    torch.testing.assert_close(total / count, together.total)


@pytest.mark.parametrize("term", ["text", "image"])
def test_a_loss_that_is_not_finite_is_named(term):
    values = {"text": torch.tensor(1.0), "image": torch.tensor(1.0), term: torch.tensor(torch.nan)}
    with pytest.raises(RuntimeError, match=f"the {term} loss is nan"):
        LossTerms(**values, num_text=1, num_image=1).check_finite()


def test_labels_without_anything_to_learn_still_reach_every_parameter(tiny_model):
    tiny_model.train()
    ids = torch.tensor([[1, 5, 6, 2]])
    output = tiny_model(input_ids=ids, labels=torch.full_like(ids, IGNORE_ID))
    assert output.loss is None
    (output.loss_terms.text + output.loss_terms.image).backward()
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name
    with pytest.raises(ValueError, match="the labels leave nothing to learn"):
        _ = output.loss_terms.total


def test_labels_of_another_shape_are_refused(tiny_model):
    ids = torch.tensor([[1, 5, 6, 2]])
    with pytest.raises(ValueError, match=r"labels must have the shape of input_ids \(1, 4\)"):
        tiny_model(input_ids=ids, labels=ids[:, :3])


def test_codes_can_only_be_learned_at_visual_tokens(tiny_model):
    ids = torch.tensor([[1, 5, 6, 2]])
    labels = torch.tensor([[1, 5, tiny_model.config.image_token_id, 2]])
    with pytest.raises(ValueError, match="where input_ids hold no visual token"):
        tiny_model(input_ids=ids, labels=labels)


def test_a_drawn_picture_needs_a_position_before_it(tiny_model):
    visual = tiny_model.config.image_token_id
    ids = torch.tensor([[visual] * 6 + [4]])
    with pytest.raises(ValueError, match="a row starts with a drawn picture"):
        tiny_model(input_ids=ids, codes=torch.zeros(1, 6, 4, dtype=torch.int64), labels=ids)
