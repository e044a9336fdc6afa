"""What each image adds to a score: what intervals and paired tests resample (an image with all its texts)."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64

from littune.evaluation.metrics.uncertainty import bootstrap_mean_per_class, bootstrap_means, interval
from littune.evaluation.results import Interval, Outcome, ZeroShotOutcome

PER_CLASS = "mean_per_class_accuracy"


def hits_of(outcome: Outcome, metric: str) -> tuple[Float64[np.ndarray, " images"], Float64[np.ndarray, " images"]]:
    """Each image's hits, and how many there could be; the metric is the sum of the one over that of the other.

    Args:
        outcome: what came out for each image, or for each text.
        metric: a name of ``Result.metrics``.
    """
    if isinstance(outcome, ZeroShotOutcome):
        if metric == PER_CLASS:
            weights = 1.0 / np.bincount(outcome.labels)[outcome.labels]
            return weights * (outcome.ranks < 1), weights
        return (outcome.ranks < _k(metric)).astype(np.float64), np.ones(len(outcome.ranks))
    found = outcome.ranks[metric.rpartition("@")[0]] < _k(metric)
    if metric.startswith("image_to_text"):
        return found.astype(np.float64), np.ones(len(found))
    images = len(outcome.rows)
    hits = np.bincount(outcome.owners, weights=found, minlength=images)
    return hits, np.bincount(outcome.owners, minlength=images).astype(np.float64)


def intervals_of(outcome: Outcome, metrics: Iterable[str]) -> dict[str, Interval]:
    """The 95 % bootstrap interval of each metric, images resampled, the answers to choose from as they are."""
    names = [name for name in metrics if name != PER_CLASS]
    columns = [hits_of(outcome, name) for name in names]
    draws = bootstrap_means(np.stack([hits for hits, _ in columns], 1), np.stack([counts for _, counts in columns], 1))
    intervals = {name: interval(draws[:, column]) for column, name in enumerate(names)}
    if isinstance(outcome, ZeroShotOutcome):
        per_class = bootstrap_mean_per_class((outcome.ranks < 1).astype(np.float64), outcome.labels)
        intervals[PER_CLASS] = interval(per_class)
    return intervals


def _k(metric: str) -> int:
    return int(metric.rpartition("@")[2])
