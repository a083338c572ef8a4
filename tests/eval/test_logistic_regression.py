"""The linear classifier is the minimum of its loss, and the penalty is chosen without cheating."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from eval.logistic_regression import PENALTIES, fit, fit_best


def clouds(num_pictures: int, *, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of three classes around three points of a plane, in 6 features."""
    labels = torch.arange(num_pictures) % 3
    centres = torch.tensor([[0.0, 2, 0, 0, 0, 5], [2, 0, 0, 0, 0, 5], [-2, -2, 0, 0, 0, 5]])
    features = centres[labels] + spread * torch.randn(num_pictures, 6)
    return features * torch.tensor([1.0, 10, 1, 0.1, 1, 1]), labels


def test_the_classifier_minimises_the_penalised_loss():
    features, labels = clouds(60, spread=2.0)
    classifier = fit(features, labels, num_classes=3, penalty=0.01)
    x = features.double().numpy()
    x = (x - x.mean(axis=0)) / x.std(axis=0)

    def loss(values):
        weight, bias = values[:18].reshape(3, 6), values[18:]
        log_probs = log_softmax(x @ weight.T + bias, axis=1)
        return -log_probs[np.arange(60), labels].mean() + 0.005 * (weight**2).sum()

    best = minimize(loss, np.zeros(21), method="BFGS", options={"gtol": 1e-7})
    ours = np.concatenate([classifier.weight_CE.flatten(), classifier.bias_C])
    assert loss(ours) == pytest.approx(best.fun, rel=1e-6)
    assert classifier.weight_CE.flatten().tolist() == pytest.approx(best.x[:18], abs=2e-3)


def test_it_starts_anywhere_and_ends_in_one_place():
    features, labels = clouds(60, spread=2.0)
    direct = fit(features, labels, num_classes=3, penalty=0.01)
    start = fit(features, labels, num_classes=3, penalty=1.0)
    warm = fit(features, labels, num_classes=3, penalty=0.01, start=start)
    assert torch.allclose(direct.weight_CE, warm.weight_CE, atol=2e-3)
    assert start.weight_CE.norm() < direct.weight_CE.norm() / 3


def test_the_scale_of_a_feature_does_not_matter_and_a_constant_one_does_no_harm():
    features, labels = clouds(90)
    features[:, 2] = 7.0
    scaled = features * torch.tensor([1e3, 1, 1, 1, 1e-3, 1])
    guesses = [
        fit(each, labels, num_classes=3, penalty=1e-3).predict(each) for each in (features, scaled)
    ]
    assert torch.equal(*guesses)
    assert (guesses[0] == labels).double().mean() > 0.9


def test_every_penalty_is_tried_and_the_best_on_held_out_pictures_is_taken():
    torch.manual_seed(0)
    features = torch.randn(200, 60)
    labels = (features[:, 0] + 0.5 * torch.randn(200) > 0).long()
    sweep = fit_best(features, labels, num_classes=2)
    assert sweep.held_out_accuracies.keys() == set(PENALTIES)
    assert sweep.held_out_accuracies[sweep.penalty] == max(sweep.held_out_accuracies.values())
    again = fit_best(features, labels, num_classes=2)
    assert torch.equal(sweep.classifier.weight_CE, again.classifier.weight_CE)


def test_of_equally_good_penalties_the_strongest_is_taken():
    features, labels = clouds(90, spread=0.01)
    sweep = fit_best(features, labels, num_classes=3)
    assert set(sweep.held_out_accuracies.values()) == {1.0}
    assert sweep.penalty == 1.0


def test_too_few_pictures_are_refused():
    with pytest.raises(ValueError, match=r"at least 10 training pictures .*, got 9 and 9 labels"):
        fit_best(torch.rand(9, 2), torch.zeros(9, dtype=torch.int64), num_classes=2)
