"""Ranks by hand, against clip-benchmark, scikit-learn and a slow, obvious count, and what ties and NaNs do."""

import math

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification
from sklearn.metrics import balanced_accuracy_score

from littune.evaluation.metrics.ranks import highest, label_ranks, mean_per_class, ranks_of_best, share_within

# Three classes, six rows; the right class is the best in rows 0, 2 and 5, the second in 1 and 3, the last in 4.
SCORES = np.array(
    [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.8, 0.3], [0.3, 0.2, 0.6], [0.5, 0.4, 0.1], [0.0, -0.2, 0.1]],
    dtype=np.float32,
)
LABELS = np.array([0, 0, 1, 0, 2, 2])


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.eye(classes, dtype=bool)[labels]


def obvious_ranks(scores: np.ndarray, right: np.ndarray) -> list[int]:
    """The wrong answers that are not below the best right one, row by row."""
    ranks = []
    for row, is_right in zip(scores, right, strict=True):
        best = max(row[is_right])
        ranks.append(sum(1 for score, it_is in zip(row, is_right, strict=True) if not it_is and score >= best))
    return ranks


def test_by_hand() -> None:
    ranks = label_ranks(SCORES, LABELS)
    assert ranks.tolist() == ranks_of_best(SCORES, one_hot(LABELS, 3)).tolist() == [0, 1, 0, 1, 2, 0]
    assert [share_within(ranks, k) for k in (1, 2, 3)] == [3 / 6, 5 / 6, 1]
    # class 0: 1 of 3, class 1: 1 of 1, class 2: 1 of 2
    assert mean_per_class(ranks, LABELS) == pytest.approx((1 / 3 + 1 + 1 / 2) / 3)


def test_a_class_that_does_not_occur_does_not_count() -> None:
    assert mean_per_class(np.array([0, 1]), np.array([4, 4])) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_the_numbers_are_those_of_clip_benchmark_to_the_last_digit(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.standard_normal((997, 23), dtype=np.float32)
    labels = np.concatenate([np.arange(23), rng.choice(23, p=rng.dirichlet(np.ones(23)), size=997 - 23)])
    scores[np.arange(997), labels] += 1
    # numpy 2.4 no longer lets float() take an array of one number, which clip-benchmark 1.6 relies on.
    monkeypatch.setattr(zeroshot_classification, "float", lambda number: number.item(), raising=False)
    expected = zeroshot_classification.accuracy(torch.from_numpy(scores), torch.from_numpy(labels), topk=(1, 5))
    for ranks in (label_ranks(scores, labels), ranks_of_best(scores, one_hot(labels, 23))):
        assert [share_within(ranks, k) for k in (1, 5)] == expected
        assert mean_per_class(ranks, labels) == balanced_accuracy_score(labels, scores.argmax(axis=1))


@pytest.mark.parametrize("seed", range(3))
def test_with_ties_and_several_right_answers_ranks_are_the_obvious_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (200, 9)).astype(np.float32)
    right = one_hot(rng.integers(0, 9, 200), 9) | (rng.random((200, 9)) < 0.2)
    ranks = ranks_of_best(scores, right)
    assert ranks.tolist() == obvious_ranks(scores, right)
    assert 0 < np.mean(ranks < 1) < 1


def test_a_tie_is_no_hit() -> None:
    scores, labels = np.zeros((4, 3), dtype=np.float32), np.array([0, 1, 2, 0])
    assert label_ranks(scores, labels).tolist() == ranks_of_best(scores, one_hot(labels, 3)).tolist() == [2] * 4
    assert label_ranks(np.array([[1.0, 2.0, 1.0]]), np.array([0])).tolist() == [2]


def test_a_score_that_is_no_number_is_no_hit() -> None:
    scores, labels = np.array([[math.nan, 0.0], [0.5, math.nan], [math.nan, math.nan]]), np.array([0, 0, 1])
    assert label_ranks(scores, labels).tolist() == [1, 1, 1]
    assert ranks_of_best(scores, one_hot(labels, 2)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("k", [1, 5, 9])
def test_the_highest_are_those_of_a_stable_sort_and_scores_stay_what_they_were(k: int) -> None:
    # Few different scores, so that equal ones lie on both sides of the k-th place.
    scores = np.random.default_rng(0).integers(0, 4, (200, 9)).astype(np.float32)
    before = scores.copy()
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    assert highest(scores, k).tolist() == expected.tolist()
    assert np.array_equal(scores, before)


def test_of_nothing_there_is_no_share() -> None:
    none = np.zeros(0, np.int64)
    assert math.isnan(share_within(none, 1)) and math.isnan(mean_per_class(none, none))
