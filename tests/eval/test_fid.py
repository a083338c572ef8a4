"""Frechet distance, Inception Score and resizing, against the programs that are quoted."""

from operator import itemgetter

import numpy as np
import pytest
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric

from eval.fid import FeatureStatistics, feature_statistics, frechet_distance, inception_score
from eval.fid_resize import INCEPTION_SIZE, RESIZES, resize_clean, resize_tensorflow
from tests.eval.scoring_goldens import load_cases

# Worst measured: 2e-16 relative.
DISTANCE_TOLERANCE = 1e-9
SINGULAR_TOLERANCE = 1e-5


def draw_formula_image(width, height):
    y, x = np.mgrid[:height, :width]
    channels = [7 * x + 3 * y, 5 * x + 11 * y, x + 13 * y]
    return (np.stack(channels, axis=-1) % 256).astype(np.uint8)


@pytest.mark.parametrize("case", load_cases("fid_distance"), ids=itemgetter("id"))
@pytest.mark.parametrize(
    ("program", "method"),
    [
        ("clean_fid", "sqrtm"),
        ("guided_diffusion", "sqrtm"),
        ("torch_fidelity_0_4_0", "eigenvalues"),
    ],
)
def test_distances_equal_the_official_ones(case, program, method):
    first, second = (
        feature_statistics(np.array(case[f"features_{number}"], np.float32)) for number in (1, 2)
    )
    distance = frechet_distance(first, second, method=method)
    expected = case["expected"][program]
    tolerance = SINGULAR_TOLERANCE if case["note"] else DISTANCE_TOLERANCE
    assert distance == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("case", load_cases("inception_score"), ids=itemgetter("id"))
def test_inception_scores_equal_the_official_ones(case):
    score = inception_score(
        np.array(case["logits"], np.float32),
        num_splits=case["splits"],
        shuffle=case["shuffle"],
        seed=case["rng_seed"],
    )
    expected = case["expected"]
    assert score.mean == pytest.approx(expected["inception_score_mean"], abs=1e-9)
    assert score.std == pytest.approx(expected["inception_score_std"], abs=1e-9)


@pytest.mark.parametrize("case", load_cases("fid_resize"), ids=itemgetter("id"))
@pytest.mark.parametrize(
    ("resize", "values", "mean"),
    [
        (resize_clean, "clean_fid_bicubic", "clean_fid_mean"),
        (resize_tensorflow, "tf1_bilinear", "tf1_mean"),
    ],
)
def test_resized_pictures_equal_the_official_ones(case, resize, values, mean):
    resized = resize(draw_formula_image(*case["image_size_wh"]))
    assert resized.shape == (INCEPTION_SIZE, INCEPTION_SIZE, 3)
    assert resized.dtype == np.float32
    rows, columns = np.array(case["points_yx"]).T
    assert np.abs(resized[rows, columns] - case["expected"][values]).max() < 1e-3
    assert resized.mean(dtype=np.float64) == pytest.approx(case["expected"][mean], abs=1e-3)


def spoil(features, how):
    """Features whose covariance is singular, or hard to take a root of."""
    if how == "constant":
        features[:, 0] = 1
    if how == "repeated":
        features[:, 1] = features[:, 0]
    return features


@pytest.mark.filterwarnings("ignore:Matrix is singular")
@pytest.mark.parametrize("how", ["random", "constant", "repeated", "few"])
def test_distances_of_other_sets_equal_torch_fidelity_s_own(how):
    num_pictures = 5 if how == "few" else 60
    first, second = (
        spoil((1 + seed) * random_features(num_pictures, 12, seed), how) for seed in (0, 1)
    )
    theirs = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(each)) for each in (first, second)), False
    )["frechet_inception_distance"]
    statistics = [feature_statistics(each) for each in (first, second)]
    assert frechet_distance(*statistics, method="eigenvalues") == pytest.approx(theirs, rel=1e-12)
    # Measured: 9e-10 where pictures are few.
    assert frechet_distance(*statistics) == pytest.approx(theirs, rel=SINGULAR_TOLERANCE)


@pytest.mark.parametrize("num_pictures", [10, 23, 300])
@pytest.mark.parametrize("shuffle", [True, False])
def test_scores_of_other_logits_equal_torch_fidelity_s_own(num_pictures, shuffle):
    logits = 3 * random_features(num_pictures, 30)
    ours = inception_score(logits, shuffle=shuffle, seed=7)
    theirs = isc_features_to_metric(torch.from_numpy(logits), 10, shuffle, 7)
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], abs=1e-9)
    assert ours.std == pytest.approx(theirs["inception_score_std"], abs=1e-9)


def random_features(num_pictures, num_features, seed=0):
    return np.random.default_rng(seed).normal(size=(num_pictures, num_features)).astype(np.float32)


@pytest.mark.parametrize("method", ["sqrtm", "eigenvalues"])
def test_a_set_is_at_no_distance_from_itself_and_distances_are_symmetric(method):
    first = feature_statistics(random_features(50, 4))
    second = feature_statistics(2 * random_features(40, 4, seed=1))
    assert frechet_distance(first, first, method=method) == pytest.approx(0, abs=1e-9)
    there = frechet_distance(first, second, method=method)
    assert there == pytest.approx(frechet_distance(second, first, method=method), rel=1e-9)


def test_the_distance_of_two_known_gaussians_is_the_formula_s():
    first = FeatureStatistics(np.array([0.0, 0.0]), np.diag([4.0, 9.0]))
    second = FeatureStatistics(np.array([3.0, 4.0]), np.diag([1.0, 16.0]))
    # 25 for the means; (2 - 1)^2 + (3 - 4)^2 for the deviations
    assert frechet_distance(first, second) == pytest.approx(27)
    assert frechet_distance(first, second, method="eigenvalues") == pytest.approx(27)


def test_fewer_pictures_than_features_still_have_a_distance():
    first = feature_statistics(random_features(5, 12))
    second = feature_statistics(random_features(6, 12, seed=1))
    by_root = frechet_distance(first, second)
    assert by_root == pytest.approx(
        frechet_distance(first, second, method="eigenvalues"), rel=SINGULAR_TOLERANCE
    )


def test_a_product_without_a_finite_root_gets_a_ridge(monkeypatch):
    seen = []

    def root(product):
        seen.append(product)
        return np.full_like(product, np.nan) if len(seen) == 1 else np.eye(len(product))

    monkeypatch.setattr("eval.fid.sqrtm", root)
    statistics = FeatureStatistics(np.zeros(2), np.eye(2))
    assert frechet_distance(statistics, statistics) == pytest.approx(0)
    assert np.array_equal(seen[1], (1 + 1e-6) ** 2 * np.eye(2))


def test_a_root_that_is_not_real_is_an_error(monkeypatch):
    monkeypatch.setattr("eval.fid.sqrtm", lambda product: product + 0.5j * np.eye(2))
    statistics = FeatureStatistics(np.zeros(2), np.eye(2))
    with pytest.raises(ValueError, match=r"imaginary parts up to 0\.5, expected at most 0\.001"):
        frechet_distance(statistics, statistics)


def test_the_mean_of_float32_features_is_float32_and_the_covariance_float64():
    statistics = feature_statistics(random_features(9, 3))
    assert statistics.mean.dtype == np.float32
    assert statistics.covariance.dtype == np.float64


def test_one_feature_is_enough():
    statistics = feature_statistics(random_features(9, 1))
    assert statistics.covariance.shape == (1, 1)
    assert frechet_distance(statistics, statistics) == pytest.approx(0, abs=1e-12)


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"at least 2 pictures, got \(1, 3\)"):
        feature_statistics(random_features(1, 3))
    broken = random_features(4, 3)
    broken[2, 1] = np.nan
    with pytest.raises(ValueError, match="features of 1 pictures are not finite, first of 2"):
        feature_statistics(broken)
    three, two = (feature_statistics(random_features(9, size)) for size in (3, 2))
    with pytest.raises(ValueError, match="same features, got 3 and 2"):
        frechet_distance(three, two)
    with pytest.raises(ValueError, match="sqrtm, eigenvalues, got 'newton'"):
        frechet_distance(three, three, method="newton")


def test_pictures_that_all_look_alike_score_1_and_distinct_sure_ones_score_their_number():
    assert inception_score(np.ones((20, 5))).mean == pytest.approx(1)
    sure = 200.0 * np.eye(4)
    assert inception_score(sure, num_splits=1, shuffle=False).mean == pytest.approx(4)


def test_logits_that_cannot_be_scored_are_refused():
    with pytest.raises(ValueError, match=r"1 to the number of pictures \(9\), got 10"):
        inception_score(np.ones((9, 5)))
    with pytest.raises(ValueError, match="NaN or infinity"):
        inception_score(np.full((20, 5), np.nan))


@pytest.mark.parametrize("resize", RESIZES.values())
def test_one_colour_stays_that_colour_at_any_size(resize):
    for size in ((1, 1, 3), (5, 7, 3), (400, 301, 3)):
        assert np.allclose(resize(np.full(size, 93, np.uint8)), 93, atol=1e-4)


def test_tensorflow_s_resize_repeats_the_last_row_and_column():
    resized = resize_tensorflow(np.array([[[0] * 3, [100] * 3]], np.uint8))
    assert np.allclose(resized[:, 150:], 100)
    assert resized[0, 1, 0] == pytest.approx(100 * 2 / 299)
