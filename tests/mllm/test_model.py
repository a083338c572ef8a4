import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from mllm.model import UniTokMLLM
from tests.mllm.conftest import build_batch


def build_inputs(model: UniTokMLLM) -> dict[str, torch.Tensor]:
    batch = build_batch(model.config)
    del batch["labels"]
    return batch


def rewrite_weights(folder, change) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_a_saved_model_gives_the_same_logits(tiny_model, tmp_path):
    tiny_model.config.tokenizer_fingerprint = "0123456789abcdef"
    tiny_model.save_pretrained(tmp_path)
    inputs = build_inputs(tiny_model)
    for loader in (UniTokMLLM, AutoModelForImageTextToText):
        loaded = loader.from_pretrained(tmp_path)
        assert isinstance(loaded, UniTokMLLM)
        assert not loaded.training
        assert loaded.config.tokenizer_fingerprint == "0123456789abcdef"
        assert torch.equal(loaded(**inputs).logits, tiny_model(**inputs).logits)


def test_buffers_that_no_file_holds_are_restored(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded = UniTokMLLM.from_pretrained(tmp_path)
    saved_buffers = dict(tiny_model.named_buffers())
    for name, buffer in loaded.named_buffers():
        assert torch.equal(buffer, saved_buffers[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("lm_head.weight"), "missing lm_head.weight"),
        (lambda weights: weights.update(extra=torch.zeros(1)), "unknown extra"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tiny_model, tmp_path, change, message):
    tiny_model.save_pretrained(tmp_path)
    rewrite_weights(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        UniTokMLLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("options", [{}, {"ignore_mismatched_sizes": True}])
def test_misshapen_weights_are_refused(tiny_model, tmp_path, options):
    tiny_model.save_pretrained(tmp_path)
    rewrite_weights(tmp_path, lambda weights: weights.update({"lm_head.weight": torch.ones(3, 3)}))
    with pytest.raises((ValueError, RuntimeError), match=r"misshapen|mismatched"):
        UniTokMLLM.from_pretrained(tmp_path, **options)


def test_a_batch_of_both_kinds_reaches_every_parameter(tiny_model):
    tiny_model.train()
    tiny_model(**build_batch(tiny_model.config)).loss.backward()
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_batch_without_pictures_touches_every_parameter(tiny_model):
    tiny_model.train()
    ids = torch.tensor([[1, 5, 6, 7, 2]])
    tiny_model(input_ids=ids, labels=ids).loss.backward()
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is not None, name
    head_gradients = [parameter.grad for parameter in tiny_model.visual_head.parameters()]
    assert all((gradient == 0).all() for gradient in head_gradients)


# Newer releases of transformers have another name for it, older ones only this.
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_gradient_checkpointing_changes_no_gradient(tiny_model):
    tiny_model.train()
    batch = build_batch(tiny_model.config)
    gradients = []
    for enable in (False, True):
        if enable:
            tiny_model.gradient_checkpointing_enable()
        assert tiny_model.decoder.gradient_checkpointing == enable
        tiny_model.zero_grad()
        tiny_model(**batch).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in tiny_model.parameters()])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_groups_sum_the_loss_terms_of_their_samples(tiny_model):
    batch = build_batch(tiny_model.config)
    groups = torch.arange(len(batch["input_ids"])).unsqueeze(1).expand_as(batch["input_ids"])
    terms = tiny_model(**batch, groups=groups).loss_terms
    sums = terms.by_group.sum(dim=0).tolist()
    expected = [terms.text.item(), terms.image.item(), terms.num_text, terms.num_image]
    assert sums == pytest.approx(expected, rel=1e-5)
    alone = {key: batch[key][:1] for key in ("input_ids", "labels", "attention_mask")}
    num_pictures = int((alone["input_ids"] == tiny_model.config.image_token_id).sum()) // 6
    first = tiny_model(**alone, codes=batch["codes"][:num_pictures]).loss_terms
    assert terms.by_group[0, 0].item() == pytest.approx(first.text.item(), rel=1e-5)


def test_only_the_last_logits_can_be_asked_for(tiny_model):
    inputs = build_inputs(tiny_model)
    whole = tiny_model(**inputs).logits
    torch.testing.assert_close(tiny_model(**inputs, logits_to_keep=2).logits, whole[:, -2:])


@pytest.mark.parametrize("num_pictures", [0, 1, 3])
def test_every_placeholder_needs_its_codes(tiny_model, num_pictures):
    inputs = build_inputs(tiny_model)
    inputs["codes"] = torch.zeros(num_pictures, 6, 4, dtype=torch.int64) if num_pictures else None
    with pytest.raises(ValueError, match=f"hold 12 visual tokens, codes hold {6 * num_pictures}"):
        tiny_model(**inputs)


def test_codes_of_another_tokenizer_are_refused(tiny_model):
    inputs = build_inputs(tiny_model)
    inputs["codes"] = inputs["codes"] + 16
    with pytest.raises(ValueError, match=r"sub-codes must lie in 0\.\.31"):
        tiny_model(**inputs)


def test_codes_in_the_official_order_are_refused(tiny_model):
    inputs = build_inputs(tiny_model)
    inputs["codes"] = inputs["codes"].transpose(1, 2)
    with pytest.raises(ValueError, match=r"transpose\(1, 2\) first"):
        tiny_model(**inputs)


def read_ids(model: UniTokMLLM, words: list[int]) -> list[int]:
    return [1, *[model.config.image_token_id] * 6, *words]


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_left_padded_batch_answers_as_each_row_alone(tiny_model, use_cache):
    codes = torch.randint(0, 32, (2, 6, 4))
    rows = [read_ids(tiny_model, [5, 6, 7, 8]), read_ids(tiny_model, [9])]
    padded = torch.tensor([rows[0], [0] * 3 + rows[1]])
    options = {
        "max_new_tokens": 8,
        "do_sample": False,
        "use_cache": use_cache,
        "eos_token_id": None,
    }
    together = tiny_model.generate(
        input_ids=padded, attention_mask=(padded != 0).long(), codes=codes, **options
    )
    for index, row in enumerate(rows):
        alone = tiny_model.generate(
            input_ids=torch.tensor([row]), codes=codes[index : index + 1], **options
        )
        assert torch.equal(together[index, -8:], alone[0, -8:])


def test_several_answers_per_row_keep_the_pictures_of_their_row(tiny_model):
    codes = torch.randint(0, 32, (3, 6, 4))
    visual = [tiny_model.config.image_token_id] * 6
    ids = torch.tensor([[1, *visual, 5, *visual, 6], [0] * 6 + [1, 7, *visual, 8]])
    options = {"max_new_tokens": 4, "num_beams": 2, "do_sample": False, "eos_token_id": None}
    together = tiny_model.generate(
        input_ids=ids, attention_mask=(ids != 0).long(), codes=codes, **options
    )
    for index, own in enumerate((codes[:2], codes[2:])):
        row = ids[index][ids[index] != 0][None]
        alone = tiny_model.generate(input_ids=row, codes=own, **options)
        assert torch.equal(together[index, -4:], alone[0, -4:])


def test_bfloat16_comes_close(tiny_model):
    inputs = build_inputs(tiny_model)
    expected = tiny_model(**inputs).logits
    logits = tiny_model.to(torch.bfloat16)(**inputs).logits
    assert logits.dtype == torch.bfloat16
    is_token = inputs["attention_mask"].bool()
    error = (logits.float() - expected)[is_token].norm() / expected[is_token].norm()
    # Measured 0.025.
    assert error < 0.05, error


def test_weights_that_would_have_to_be_unpickled_are_not_read(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    torch.save(tiny_model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"never unpickled; leave use_safetensors out"):
        UniTokMLLM.from_pretrained(tmp_path, use_safetensors=False)
    (tmp_path / "model.safetensors").unlink()
    message = r"holds no model\*\.safetensors; .* converted first: unitok convert .* -o FOLDER"
    with pytest.raises(FileNotFoundError, match=message):
        UniTokMLLM.from_pretrained(tmp_path)
