"""Hubs counted by hand, against scipy, and against the formula of query-bank normalisation written out."""

import math
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from littune.evaluation.metrics.hubness import QueryBank, k_occurrence, skewness


def _units(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    drawn = rng.standard_normal((rows, dim)).astype(np.float32)
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_occurrence_by_hand() -> None:
    top = np.array([[0, 1], [0, 2], [0, 1]])
    assert k_occurrence(top, 5).tolist() == [3, 2, 1, 0, 0]
    assert k_occurrence(np.zeros((0, 2), np.int64), 3).tolist() == [0, 0, 0]


def test_skewness_is_scipys() -> None:
    counts = np.random.default_rng(1).poisson(0.7, size=500)
    assert skewness(counts) == pytest.approx(stats.skew(counts), rel=1e-12)
    assert skewness(np.array([0, 0, 0, 4])) == pytest.approx((3 * (-1) ** 3 + 27) / 4 / 3**1.5)
    assert skewness(np.array([2, 2, 2])) == 0
    assert math.isnan(skewness(np.zeros(0, np.int64)))


def test_adjusted_scores_are_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.evaluation.metrics.hubness._SCORES_IN_A_BLOCK", 100)  # several blocks
    rng = np.random.default_rng(2)
    bank, queries, answers = _units(rng, 12, 8), _units(rng, 30, 8), _units(rng, 20, 8)
    scores = queries @ answers.T
    normalised = np.exp(20 * scores) / np.exp(20 * bank @ answers.T).sum(axis=0)
    activated = {int(np.argmax(row)) for row in bank @ answers.T}
    expected = [
        normalised[i] if int(np.argmax(scores[i])) in activated else np.exp(scores[i]) for i in range(len(queries))
    ]
    touched = [int(np.argmax(row)) in activated for row in scores]
    assert any(touched) and not all(touched)
    adjusted = QueryBank.of(bank, answers).adjust(scores)
    assert np.allclose(np.exp(adjusted), expected, rtol=1e-4)
    assert adjusted.dtype == np.float32


def test_a_hub_is_marked_down() -> None:
    answers = _units(np.random.default_rng(3), 200, 32)
    hub, right = answers[150], np.arange(100)
    towards_the_hub = answers + 2 * hub
    queries = towards_the_hub / np.linalg.norm(towards_the_hub, axis=1, keepdims=True)
    scores = queries[:100] @ answers.T
    adjusted = QueryBank.of(queries[100:], answers).adjust(scores)
    assert np.mean(scores.argmax(axis=1) == right) < 0.1 < 0.9 < np.mean(adjusted.argmax(axis=1) == right)


def test_equal_answers_stay_equal_and_scores_are_not_written_to() -> None:
    rng = np.random.default_rng(4)
    answers = _units(rng, 300, 24)[rng.integers(300, size=901)]
    made = QueryBank.of(_units(rng, 500, 24), answers)
    groups = np.unique(answers, axis=0, return_inverse=True)[1]
    for group in range(groups.max() + 1):
        assert len(set(made.normalisers[groups == group])) == 1 and len(set(made.active[groups == group])) == 1
    scores = rng.random((4, 901), dtype=np.float32)
    before = scores.copy()
    made.adjust(scores)
    assert np.array_equal(scores, before)


def test_large_cosines_do_not_overflow() -> None:
    rows = np.eye(3, dtype=np.float32)
    made = QueryBank.of(rows, rows, beta=5000.0)
    assert made.normalisers == pytest.approx([5000.0] * 3)


def test_memory_does_not_grow_with_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.evaluation.metrics.hubness._SCORES_IN_A_BLOCK", 1 << 16)
    rng = np.random.default_rng(5)
    bank, answers = _units(rng, 20_000, 8), _units(rng, 1000, 8)
    tracemalloc.start()
    QueryBank.of(bank, answers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20 < 20_000 * 1000 * 4 / 10
