"""Calibration by hand, against a plain loop, and against scipy's and scikit-learn's own fits."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.linear_model import LogisticRegression

from littune.evaluation.metrics.calibration import (
    cross_fitted,
    expected_calibration_error,
    fit_scale,
    reliability,
)


def _drawn(rng: np.random.Generator, n: int, classes: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, and labels that are drawn from the softmax of ``scale`` times them."""
    cosines = rng.normal(0, 0.1, size=(n, classes)).clip(-1, 1).astype(np.float32)
    labels = np.array([rng.choice(classes, p=row) for row in softmax(scale * cosines.astype(np.float64), axis=1)])
    return cosines, labels


def test_bins_by_hand() -> None:
    confidence = np.array([0.0, 0.1, 0.5, 0.6, 0.9, 1.0], np.float32)
    right = np.array([False, True, False, True, True, True])
    low, high = reliability(confidence, right, bins=2)  # 0.5 is the upper edge of the first
    assert (low.count, low.confidence, low.accuracy) == (3, pytest.approx(0.2), pytest.approx(1 / 3))
    assert (high.count, high.confidence, high.accuracy) == (3, pytest.approx(2.5 / 3), 1)
    error = expected_calibration_error(confidence, right, bins=2)
    assert error == pytest.approx(0.5 * (1 / 3 - 0.2) + 0.5 * (1 - 2.5 / 3))
    assert [one.count for one in reliability(np.float32([0.2, 0.4, 0.6, 0.8, 1.0]), np.ones(5, bool), bins=5)] == [
        1
    ] * 5


def test_an_empty_bin_has_no_mean_and_no_images_have_no_error() -> None:
    first, second = reliability(np.array([0.9]), np.array([True]), bins=2)
    assert (first.count, second.count) == (0, 1) and math.isnan(first.confidence) and math.isnan(first.accuracy)
    assert math.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


def test_the_error_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(1)
    confidence, right = rng.random(500), rng.random(500) < 0.6
    error = 0.0
    for number in range(15):
        inside = [i for i in range(500) if number / 15 < confidence[i] <= (number + 1) / 15]
        error += len(inside) / 500 * abs(np.mean(confidence[inside]) - np.mean(right[inside]))
    assert expected_calibration_error(confidence, right) == pytest.approx(error, rel=1e-12)


@pytest.mark.parametrize(("scale", "start"), [(5.0, 100.0), (30.0, 100.0), (30.0, 1.0), (200.0, 10.0)])
def test_the_scale_is_the_best_that_scipy_finds(monkeypatch: pytest.MonkeyPatch, scale: float, start: float) -> None:
    monkeypatch.setattr("littune.evaluation.metrics.calibration._COSINES_IN_A_BLOCK", 1000)
    cosines, labels = _drawn(np.random.default_rng(2), 700, 11, scale)

    def loss(factor: float) -> float:
        return -log_softmax(factor * cosines.astype(np.float64), axis=1)[np.arange(700), labels].mean()

    best = minimize_scalar(loss, bounds=(0.01, 1000), method="bounded", options={"xatol": 1e-6}).x
    found = fit_scale(cosines, labels, start)
    assert found == pytest.approx(best, rel=1e-3)
    assert found == pytest.approx(scale, rel=0.15)
    one_hot = np.eye(11, dtype=bool)[labels]
    assert fit_scale(cosines, one_hot, start) == pytest.approx(found, rel=1e-5)


def test_for_two_classes_it_is_logistic_regression() -> None:
    cosines, labels = _drawn(np.random.default_rng(3), 400, 2, 20.0)
    model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-8)
    model.fit(np.float64(cosines[:, 1:] - cosines[:, :1]), labels)
    assert fit_scale(cosines, labels) == pytest.approx(float(model.coef_[0, 0]), rel=1e-4)


def test_of_several_right_classes_the_probabilities_add_up() -> None:
    rng = np.random.default_rng(4)
    cosines, labels = _drawn(rng, 300, 7, 25.0)
    right = np.eye(7, dtype=bool)[labels] | (rng.random((300, 7)) < 0.2)

    def loss(factor: float) -> float:
        logits = factor * cosines.astype(np.float64)
        return (logsumexp(logits, axis=1) - logsumexp(np.where(right, logits, -np.inf), axis=1)).mean()

    best = minimize_scalar(loss, bounds=(0.01, 1000), method="bounded", options={"xatol": 1e-6}).x
    assert fit_scale(cosines, right) == pytest.approx(best, rel=1e-3)


def test_the_scale_stays_within_bounds() -> None:
    cosines = np.array([[0.3, 0.1], [0.1, 0.3]], np.float32)
    assert fit_scale(cosines, np.array([1, 0])) == pytest.approx(1e-2, rel=1e-3)  # always wrong
    assert 100 < fit_scale(cosines, np.array([0, 1])) <= 1e4  # always right
    assert fit_scale(np.zeros((3, 2), np.float32), np.array([0, 1, 1]), 7.0) == 7  # cosines that say nothing
    assert fit_scale(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), 7.0) == 7


def test_a_learned_temperature_mends_overconfidence() -> None:
    cosines, labels = _drawn(np.random.default_rng(5), 2000, 10, 20.0)
    right = cosines.argmax(axis=1) == labels
    overconfident = softmax(100 * cosines, axis=1).max(axis=1)
    confidence, scale = cross_fitted(cosines, labels)
    assert scale == pytest.approx(20, rel=0.1)
    assert expected_calibration_error(overconfident, right) > 0.2
    assert expected_calibration_error(confidence, right) < 0.04


def test_no_image_helps_to_learn_its_own_temperature() -> None:
    cosines, labels = _drawn(np.random.default_rng(6), 60, 4, 15.0)
    confidence, _ = cross_fitted(cosines, labels, seed=3)
    halves = np.array_split(np.random.default_rng(3).permutation(60), 2)
    for own, other in (halves, halves[::-1]):
        expected = softmax(fit_scale(cosines[other], labels[other]) * cosines[own], axis=1).max(axis=1)
        assert np.allclose(confidence[own], expected, rtol=1e-5)
    again, _ = cross_fitted(cosines, labels, seed=3)
    assert np.array_equal(confidence, again) and not np.array_equal(confidence, cross_fitted(cosines, labels)[0])


def test_a_single_image_keeps_a_confidence() -> None:
    confidence, scale = cross_fitted(np.array([[0.5, 0.1]], np.float32), np.array([0]))
    assert 0.5 < confidence[0] <= 1 and scale > 0
