"""Frechet distance between two sets of features, and the Inception Score, as officially computed.

Three programs are quoted. clean-fid and the ADM evaluator take the square root of the product of
the covariances; torch-fidelity 0.4.0 adds up the square roots of its eigenvalues. They agree to
about 1e-12, and to 1e-9 where a covariance is singular.

Shapes: N pictures, D features, C classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from scipy.special import log_softmax

FrechetMethod: TypeAlias = Literal["sqrtm", "eigenvalues"]

RIDGE = 1e-6  # added to both diagonals where the product has no finite root
MAX_IMAGINARY = 1e-3  # of the root's diagonal; more is no rounding error


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean (D,), in the features' own precision, and float64 covariance (D, D) with N - 1."""

    mean: NDArray
    covariance: NDArray


def feature_statistics(features_ND: NDArray) -> FeatureStatistics:
    """Statistics of features (N, D); ValueError for fewer than two pictures or for NaN."""
    if features_ND.ndim != 2 or len(features_ND) < 2:
        raise ValueError(
            f"features must be (N, D) of at least 2 pictures, got {features_ND.shape}; "
            "one picture has no covariance"
        )
    if not np.isfinite(features_ND).all():
        rows = np.flatnonzero(~np.isfinite(features_ND).all(axis=1))
        raise ValueError(f"the features of {len(rows)} pictures are not finite, first of {rows[0]}")
    # The mean of float32 features stays float32, as in all three programs; the covariance does not.
    covariance_DD = np.atleast_2d(np.cov(features_ND, rowvar=False))
    return FeatureStatistics(features_ND.mean(axis=0), covariance_DD)


def frechet_distance(
    first: FeatureStatistics, second: FeatureStatistics, *, method: FrechetMethod = "sqrtm"
) -> float:
    """|m1 - m2|^2 + tr S1 + tr S2 - 2 tr (S1 S2)^(1/2), by the trace term of `method`."""
    if method not in TRACE_TERMS:
        raise ValueError(f"method must be one of {', '.join(TRACE_TERMS)}, got {method!r}")
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"both sets need the same features, got {first.mean.shape[0]} and "
            f"{second.mean.shape[0]}"
        )
    difference_D = first.mean - second.mean
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    trace_term = TRACE_TERMS[method](first.covariance, second.covariance)
    return float(difference_D @ difference_D + traces - 2 * trace_term)


def _trace_by_sqrtm(first_DD: NDArray, second_DD: NDArray) -> float:
    root_DD = sqrtm(first_DD @ second_DD)
    if not np.isfinite(root_DD).all():
        ridge_DD = RIDGE * np.eye(len(first_DD))
        root_DD = sqrtm((first_DD + ridge_DD) @ (second_DD + ridge_DD))
    diagonal_D = np.diagonal(root_DD)
    if (imaginary := np.abs(diagonal_D.imag).max()) > MAX_IMAGINARY:
        raise ValueError(
            f"the root of the covariances has imaginary parts up to {imaginary:.3g}, expected at "
            f"most {MAX_IMAGINARY}; use more pictures"
        )
    return float(diagonal_D.real.sum())


def _trace_by_eigenvalues(first_DD: NDArray, second_DD: NDArray) -> float:
    eigenvalues_D = np.linalg.eigvals(first_DD @ second_DD)
    return float(np.sqrt(eigenvalues_D.astype(np.complex128)).real.sum())


TRACE_TERMS: dict[str, Callable[[NDArray, NDArray], float]] = {
    "sqrtm": _trace_by_sqrtm,
    "eigenvalues": _trace_by_eigenvalues,
}


@dataclass(frozen=True)
class InceptionScore:
    """Mean and population standard deviation over the splits."""

    mean: float
    std: float


def inception_score(
    logits_NC: NDArray, *, num_splits: int = 10, shuffle: bool = True, seed: int = 2020
) -> InceptionScore:
    """exp of the mean divergence between each picture's classes and those of its split.

    The defaults are torch-fidelity's own; the published reconstruction scores have seed 0.
    """
    num_pictures = len(logits_NC)
    if not 1 <= num_splits <= num_pictures:
        raise ValueError(
            f"num_splits must be 1 to the number of pictures ({num_pictures}), got {num_splits}"
        )
    if shuffle:
        order_N = np.random.RandomState(seed).permutation(num_pictures)
        logits_NC = logits_NC[order_N]
    if not np.isfinite(logits_NC).all():
        raise ValueError("the logits hold NaN or infinity; the pictures cannot be scored")
    log_probs_NC = log_softmax(logits_NC.astype(np.float64), axis=1)
    bounds = [split * num_pictures // num_splits for split in range(num_splits + 1)]
    scores = [_score_split(log_probs_NC[start:stop]) for start, stop in pairwise(bounds)]
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)))


def _score_split(log_probs_NC: NDArray) -> float:
    probs_NC = np.exp(log_probs_NC)
    log_marginal_C = np.log(probs_NC.mean(axis=0))
    divergences_N = (probs_NC * (log_probs_NC - log_marginal_C)).sum(axis=1)
    return float(np.exp(divergences_N.mean()))
