"""Accuracy by hand, against clip-benchmark and scikit-learn, and what ties and NaNs do."""

import math

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification
from sklearn.metrics import balanced_accuracy_score

from littune.evaluation.metrics.ranks import (
    accuracy_at_k,
    label_ranks,
    mean_per_class,
    mean_per_class_accuracy,
    share_within,
)

# Three classes, six rows; the right class is the best in rows 0, 2 and 5, the second in 1 and 3, the last in 4.
SCORES = np.array(
    [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.8, 0.3], [0.3, 0.2, 0.6], [0.5, 0.4, 0.1], [0.0, -0.2, 0.1]],
    dtype=np.float32,
)
LABELS = np.array([0, 0, 1, 0, 2, 2])


def test_by_hand() -> None:
    assert label_ranks(SCORES, LABELS).tolist() == [0, 1, 0, 1, 2, 0]
    assert accuracy_at_k(SCORES, LABELS, 1) == 3 / 6
    assert accuracy_at_k(SCORES, LABELS, 2) == 5 / 6
    assert accuracy_at_k(SCORES, LABELS, 3) == 1
    # class 0: 1 of 3, class 1: 1 of 1, class 2: 1 of 2
    assert mean_per_class_accuracy(SCORES, LABELS) == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)


def test_a_class_that_does_not_occur_does_not_count() -> None:
    assert mean_per_class_accuracy(SCORES[:2], LABELS[:2]) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_numbers_are_those_of_clip_benchmark_to_the_last_digit(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((997, 23), dtype=np.float32)
    labels = np.concatenate([np.arange(23), rng.choice(23, p=rng.dirichlet(np.ones(23)), size=997 - 23)])
    scores[np.arange(997), labels] += 1
    # numpy 2.4 no longer lets float() take an array of one number, which clip-benchmark 1.6 relies on.
    monkeypatch.setattr(zeroshot_classification, "float", lambda number: number.item(), raising=False)
    expected = zeroshot_classification.accuracy(torch.from_numpy(scores), torch.from_numpy(labels), topk=(1, 5))
    assert [accuracy_at_k(scores, labels, k) for k in (1, 5)] == expected
    assert mean_per_class_accuracy(scores, labels) == balanced_accuracy_score(labels, scores.argmax(axis=1))


def test_a_tie_is_no_hit() -> None:
    scores = np.zeros((4, 3), dtype=np.float32)
    labels = np.array([0, 1, 2, 0])
    assert accuracy_at_k(scores, labels, 1) == accuracy_at_k(scores, labels, 2) == 0
    assert mean_per_class_accuracy(scores, labels) == 0
    assert label_ranks(np.array([[1.0, 2.0, 1.0]]), np.array([0])).tolist() == [2]


def test_a_score_that_is_no_number_is_no_hit() -> None:
    scores = np.array([[math.nan, 0.0], [0.5, math.nan], [math.nan, math.nan]])
    assert label_ranks(scores, np.array([0, 0, 1])).tolist() == [1, 1, 1]


def test_of_nothing_there_is_no_share() -> None:
    none = np.zeros(0, np.int64)
    assert math.isnan(share_within(none, 1)) and math.isnan(mean_per_class(none, none))
