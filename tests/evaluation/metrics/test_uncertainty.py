"""Bootstrap and sign flips against plain loops, scipy, and cases counted by hand."""

import math
import time
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from littune.evaluation.metrics.uncertainty import (
    bootstrap_mean_per_class,
    bootstrap_means,
    interval,
    paired_test,
)


def _plain_draws(n: int, num_draws: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(n, size=n) for _ in range(num_draws)]


def test_means_are_those_of_a_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 6, size=(40, 3))
    hits = rng.binomial(counts, [0.2, 0.5, 0.9])
    expected = [hits[rows].sum(axis=0) / counts[rows].sum(axis=0) for rows in _plain_draws(40, 50, seed=7)]
    assert np.allclose(bootstrap_means(hits, counts, num_draws=50, seed=7), expected, rtol=1e-14)
    monkeypatch.setattr("littune.evaluation.metrics.uncertainty._WEIGHTS_IN_A_BLOCK", 130)
    assert np.allclose(bootstrap_means(hits, counts, num_draws=50, seed=7), expected, rtol=1e-14)


def test_means_per_class_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(2)
    labels = rng.choice([3, 1, 8, 5], size=30, p=[0.6, 0.3, 0.05, 0.05])  # some draws lack a class
    hits = rng.random(30) < 0.5
    expected = [
        np.mean([hits[rows][labels[rows] == name].mean() for name in np.unique(labels[rows])])
        for rows in _plain_draws(30, 60, seed=3)
    ]
    assert min(len(np.unique(labels[rows])) for rows in _plain_draws(30, 60, seed=3)) < len(np.unique(labels))
    assert np.allclose(bootstrap_mean_per_class(hits, labels, num_draws=60, seed=3), expected, rtol=1e-14)


def test_the_interval_is_the_textbooks() -> None:
    hits = np.random.default_rng(3).random(2000) < 0.3
    low, high = interval(bootstrap_means(hits[:, None], np.ones((2000, 1)))[:, 0])
    error = 1.96 * math.sqrt(hits.mean() * (1 - hits.mean()) / 2000)
    assert (low, high) == pytest.approx((hits.mean() - error, hits.mean() + error), abs=0.15 * error)
    peer = stats.bootstrap((hits,), np.mean, n_resamples=1000, method="percentile", rng=np.random.default_rng(0))
    assert (low, high) == pytest.approx(tuple(peer.confidence_interval), abs=0.1 * error)


def test_captions_of_one_image_are_no_independent_trials() -> None:
    hit = np.random.default_rng(4).random(400) < 0.5
    five = interval(bootstrap_means(5 * hit[:, None], np.full((400, 1), 5))[:, 0])
    assert five == interval(bootstrap_means(hit[:, None], np.ones((400, 1)))[:, 0])


def test_level_and_numbers_that_are_none() -> None:
    draws = np.array([*range(101), math.nan])
    assert interval(draws) == pytest.approx((2.5, 97.5))
    assert interval(draws, level=0.5) == pytest.approx((25, 75))
    assert all(math.isnan(end) for end in interval(np.array([math.nan])))
    nothing = bootstrap_means(np.zeros((5, 1)), np.array([[1.0], [0], [0], [0], [0]]), num_draws=200)
    assert 0 < np.isnan(nothing).sum() < 200 and np.nanmax(nothing) == 0
    assert np.isnan(bootstrap_means(np.zeros((0, 2)), np.zeros((0, 2)), num_draws=3)).tolist() == [[True] * 2] * 3
    assert np.isnan(bootstrap_mean_per_class(np.zeros(0), np.zeros(0, np.int64), num_draws=3)).all()


def test_an_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for seed in range(200):
        hits = rng.random((150, 1)) < 0.4
        low, high = interval(bootstrap_means(hits, np.ones((150, 1)), num_draws=300, seed=seed)[:, 0])
        held += low <= 0.4 <= high
    assert 180 <= held <= 198


def test_equal_runs_do_not_differ() -> None:
    scores = np.random.default_rng(6).random(50)
    same = paired_test(scores, scores)
    assert (same.difference, same.interval, same.p_value) == (0, (0, 0), 1)


def test_the_p_value_by_hand() -> None:
    first, second = np.zeros(6), np.array([1.0, 1, 1, 1, 0, 0])
    # Of the 16 ways to sign four ones, two reach a sum of 4 or -4.
    paired = paired_test(first, second)
    assert (paired.difference, paired.p_value) == (pytest.approx(4 / 6), 2 / 16)
    assert paired_test(second, first).difference == pytest.approx(-4 / 6)
    # Of 3, 1, 1 and 1 the sums are 4 or more as 3+1+1+1 and, three ways, as 3+1+1-1; as often they are -4 or less.
    weighted = paired_test(first, np.array([1.0, 1, 1, -1, 0, 0]), np.array([3.0, 1, 1, 1, 2, 2]))
    assert (weighted.difference, weighted.p_value) == (pytest.approx(4 / 10), 8 / 16)


@pytest.mark.parametrize("seed", range(3))
def test_p_values_agree_with_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.random(300) < 0.5, rng.random(300) < 0.58
    won, lost = np.count_nonzero(second & ~first), np.count_nonzero(first & ~second)
    exact = stats.binomtest(int(won), int(won + lost)).pvalue  # McNemar's exact test
    assert paired_test(first, second).p_value == pytest.approx(exact, abs=0.02)
    means = rng.normal(0.1, 1, size=(2, 80))
    peer = stats.permutation_test(
        (means[0], means[1]), lambda a, b, axis: np.mean(b - a, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=9999, rng=rng,
    )  # fmt: skip
    assert paired_test(means[0], means[1]).p_value == pytest.approx(peer.pvalue, abs=0.02)


def test_without_a_difference_p_values_are_spread_evenly() -> None:
    rng = np.random.default_rng(7)
    p_values = [paired_test(rng.random(60), rng.random(60), seed=seed).p_value for seed in range(100)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_large_sets_are_quick_and_take_little_memory() -> None:
    rng = np.random.default_rng(8)
    hits = rng.random((100_000, 4)) < 0.5
    tracemalloc.start()
    began = time.process_time()
    draws = bootstrap_means(hits, np.ones_like(hits), num_draws=100)
    paired = paired_test(hits[:, 0], hits[:, 0] ^ (rng.random(100_000) < 0.3))
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert draws.shape == (100, 4) and 0 < paired.p_value <= 1
    assert peak < 100 * 2**20
    assert seconds < 30
