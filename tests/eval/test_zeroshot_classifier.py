"""Class vectors and accuracies of zero-shot classification, against the official ones."""

from operator import itemgetter

import pytest
import torch

from eval import zeroshot_classifier
from eval.zeroshot_classifier import (
    class_logits,
    class_vectors,
    encode_classes,
    imagenet_names,
    imagenet_templates,
    top_accuracies,
)
from tests.eval.scoring_goldens import load_cases
from tests.mllm.tiny_pipeline import build_tiny_tokenizer


@pytest.mark.parametrize("case", load_cases("zero_shot_classifier"), ids=itemgetter("id"))
def test_vectors_and_accuracies_equal_the_official_ones(case):
    vectors = class_vectors(torch.tensor(case["text_embeddings_class_template_dim"]))
    expected = case["expected"]
    error = (vectors.T - torch.tensor(expected["classifier_dim_by_class"])).abs().max()
    assert error < 2e-6  # measured: 5e-7, the rounding of the recorded digits
    logits = class_logits(torch.tensor(case["image_embeddings"]), vectors)
    accuracies = top_accuracies(logits, torch.tensor(case["labels"]))
    assert accuracies.top1 == expected["top1"]
    assert accuracies.top5 == expected["top5"]


def test_names_and_templates_are_the_published_ones():
    names, templates = imagenet_names(), imagenet_templates()
    assert len(names) == 1000
    assert len(templates) == 80
    repeated = [index for index, name in enumerate(names) if names.count(name) > 1]
    assert repeated == [657, 744, 836, 837]
    assert [names[index] for index in repeated] == ["missile"] * 2 + ["sunglasses"] * 2


def test_edited_names_are_refused(monkeypatch):
    monkeypatch.setattr(zeroshot_classifier, "IMAGENET_CLASSNAMES", ["tench"])
    with pytest.raises(RuntimeError, match=r"class names have the SHA-256 .*expected 571ae1c5"):
        imagenet_names()
    monkeypatch.setattr(zeroshot_classifier, "OPENAI_IMAGENET_TEMPLATES", [str])
    with pytest.raises(RuntimeError, match=r"templates have the SHA-256 .*expected 4f976686"):
        imagenet_templates()


def test_a_tokenizer_s_text_tower_gives_one_unit_vector_per_class():
    tokenizer = build_tiny_tokenizer()
    names = [f"thing {number}" for number in range(11)]
    seen = []
    with torch.no_grad():
        vectors = encode_classes(
            tokenizer.encode_text,
            names=names,
            templates=("a {}.", "many {} there."),
            progress=lambda *counts: seen.append(counts),
        )
        alone = tokenizer.encode_text(["a thing 10.", "many thing 10 there."])
    assert vectors.shape == (11, 16)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(11))
    assert torch.allclose(vectors[10], class_vectors(alone[None])[0], atol=1e-6)
    assert seen == [(10, 11), (11, 11)]


def test_every_text_weighs_alike_whatever_its_length():
    long_and_short = torch.tensor([[[10.0, 0.0], [0.0, 0.1]]])
    assert torch.allclose(class_vectors(long_and_short), torch.full((1, 2), 0.5**0.5))


def test_logits_are_scaled_by_100():
    assert class_logits(torch.eye(2), torch.eye(2)).tolist() == [[100, 0], [0, 100]]


def test_inputs_that_cannot_be_scored_are_refused():
    logits = torch.rand(3, 5)
    labels = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"at least 1 picture and 5 classes, got \(3, 4\)"):
        top_accuracies(logits[:, :4], labels)
    with pytest.raises(ValueError, match="3 numbers from 0 to 4, got"):
        top_accuracies(logits, labels[:2])
    with pytest.raises(ValueError, match=r"got \[0, 1, 5\]"):
        top_accuracies(logits, torch.tensor([0, 1, 5]))
    with pytest.raises(ValueError, match="got NaN"):
        top_accuracies(logits * torch.nan, labels)
