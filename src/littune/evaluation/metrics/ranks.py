"""Metrics as pure functions of arrays.

Everything rests on the *rank* of the right answer: how many wrong answers stand ahead of it. A wrong answer
with an equal score stands ahead, and so does everything where a score is NaN: a tie is never a hit by luck,
and a model that gives every answer the same score gets none right. Without ties the numbers are those of
``clip_benchmark.metrics``.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, Int, Int64


def label_ranks(scores: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """How many wrong classes stand ahead of the right one, int64.

    Args:
        scores: higher is better.
        labels: the index of each row's right class.
    """
    right = np.take_along_axis(scores, labels[:, None], axis=1)
    ahead: np.ndarray = scores.shape[1] - 1 - np.count_nonzero(scores < right, axis=1)
    return ahead


def ranks_of_best(
    scores: Float[np.ndarray, "n answers"], right: Bool[np.ndarray, "n answers"]
) -> Int64[np.ndarray, " n"]:
    """How many wrong answers stand ahead of the best right one, where several may be right.

    Args:
        scores: higher is better.
        right: which answers are right; at least one in each row.
    """
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    ahead: np.ndarray = np.count_nonzero(~(scores < best) & ~right, axis=1)
    return ahead


def highest(scores: Float[np.ndarray, "n answers"], k: int) -> Int64[np.ndarray, "n k"]:
    """The answers of the highest scores, best first, equal scores in the answers' order.

    A few at most are wanted: each is another pass over the scores. Meanwhile those that are found are lowered in
    place; afterwards all are as they were.

    Args:
        scores: higher is better; none is minus infinity.
        k: how many of the answers, at most all.
    """
    rows = np.arange(len(scores))
    found, values = np.empty((len(scores), k), np.int64), np.empty((len(scores), k), scores.dtype)
    for place in range(k):
        best = scores.argmax(axis=1)
        found[:, place], values[:, place] = best, scores[rows, best]
        scores[rows, best] = -np.inf
    np.put_along_axis(scores, found, values, axis=1)
    return found


def share_within(ranks: Int[np.ndarray, " n"], k: int) -> float:
    """The share of the ranks that are among the first ``k``: accuracy@k, or recall@k.

    Returns:
        A fraction; NaN where there are no ranks.
    """
    return float(np.count_nonzero(ranks < k) / len(ranks)) if len(ranks) else math.nan


def mean_per_class(ranks: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float:
    """The share of first ranks within each class, averaged over the classes that occur (balanced accuracy).

    Returns:
        A fraction; NaN where there are no ranks.
    """
    if not len(ranks):
        return math.nan
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    hits = np.bincount(classes, weights=ranks < 1, minlength=len(sizes))
    return float(np.mean(hits / sizes))
