"""Logistic regression on frozen features, by L-BFGS: the loss is convex, so it has one solution.

Features are standardised by the training pictures first. How strongly weights are penalised is
chosen on a tenth of the training pictures, then all of them are learned from, as CLIP's authors do
(arXiv 2103.00020, appendix A.3), but over fewer values.

Shapes: N pictures, E feature width, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(0, -7, -1))  # strong first: each starts the next
HELD_OUT = 10  # one of so many training pictures chooses the penalty
MAX_ITERATIONS = 300
TOLERANCE = 1e-7  # change of the loss at which the search ends


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """Logits of standardised features."""

    weight_CE: Tensor
    bias_C: Tensor
    mean_E: Tensor
    std_E: Tensor

    def predict(self, features_NE: Tensor) -> Tensor:
        """The class of each picture, (N,) int64."""
        standardised_NE = (features_NE - self.mean_E) / self.std_E
        return (standardised_NE @ self.weight_CE.T + self.bias_C).argmax(dim=1)


@dataclass(frozen=True, eq=False)
class Sweep:
    """The classifier with the best penalty, and how good each was on the held-out pictures."""

    classifier: LinearClassifier
    penalty: float
    held_out_accuracies: Mapping[float, float]  # shares, 0..1


def fit(
    features_NE: Tensor,
    labels_N: Tensor,
    *,
    num_classes: int,
    penalty: float,
    start: LinearClassifier | None = None,
) -> LinearClassifier:
    """Minimise cross-entropy + penalty / 2 * |weights|^2, beginning at `start` or at zero."""
    std_E, mean_E = torch.std_mean(features_NE, dim=0, correction=0)
    std_E = std_E.where(std_E > 0, 1.0)  # a constant feature says nothing, and divides nothing
    standardised_NE = (features_NE - mean_E) / std_E
    weight_CE = torch.zeros(num_classes, features_NE.shape[1], device=features_NE.device)
    bias_C = torch.zeros(num_classes, device=features_NE.device)
    if start is not None:
        weight_CE, bias_C = start.weight_CE.clone(), start.bias_C.clone()
    parameters = [weight_CE.requires_grad_(), bias_C.requires_grad_()]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=MAX_ITERATIONS,
        tolerance_grad=TOLERANCE,
        tolerance_change=TOLERANCE,
        line_search_fn="strong_wolfe",
    )

    def loss_of() -> Tensor:
        optimizer.zero_grad()
        logits_NC = standardised_NE @ weight_CE.T + bias_C
        loss = F.cross_entropy(logits_NC, labels_N) + penalty / 2 * weight_CE.square().sum()
        loss.backward()
        return loss

    optimizer.step(loss_of)
    return LinearClassifier(weight_CE.detach(), bias_C.detach(), mean_E, std_E)


def fit_best(
    features_NE: Tensor,
    labels_N: Tensor,
    *,
    num_classes: int,
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> Sweep:
    """Try every penalty without a tenth of the pictures; learn from all with the best one.

    Of penalties that are equally good, the strongest is taken.
    """
    if len(features_NE) < HELD_OUT or len(labels_N) != len(features_NE):
        raise ValueError(
            f"a probe needs at least {HELD_OUT} training pictures with a label each, got "
            f"{len(features_NE)} and {len(labels_N)} labels"
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(features_NE), generator=generator).to(features_NE.device)
    held_out, learned = order[: len(order) // HELD_OUT], order[len(order) // HELD_OUT :]
    accuracies = {}
    found: LinearClassifier | None = None
    for penalty in sorted(penalties, reverse=True):
        found = fit(
            features_NE[learned],
            labels_N[learned],
            num_classes=num_classes,
            penalty=penalty,
            start=found,
        )
        is_right = found.predict(features_NE[held_out]) == labels_N[held_out]
        accuracies[penalty] = is_right.double().mean().item()
    best = max(accuracies, key=lambda penalty: accuracies[penalty])
    classifier = fit(features_NE, labels_N, num_classes=num_classes, penalty=best)
    return Sweep(classifier, best, accuracies)
