"""What each image adds to a score: what intervals and paired tests resample (an image with all its texts)."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64

from littune.evaluation.metrics.uncertainty import Interval, bootstrap_mean_per_class, bootstrap_means, interval
from littune.evaluation.results import Outcome, ZeroShotOutcome

PER_CLASS = "mean_per_class_accuracy"


def hits_of(outcome: Outcome, metric: str) -> tuple[Float64[np.ndarray, " images"], Float64[np.ndarray, " images"]]:
    """Each image's hits, and how many there could be; the metric is the sum of the one over that of the other.

    Args:
        outcome: what came out for each image, or for each text.
        metric: a name of ``Result.metrics``.
    """
    name, _, k = metric.rpartition("@")
    if isinstance(outcome, ZeroShotOutcome):
        if metric == PER_CLASS:
            weights = 1.0 / np.bincount(outcome.labels)[outcome.labels]
            return weights * (outcome.ranks < 1), weights
        assert name == "accuracy", f"no metric of a labelled set: {metric}"
        return (outcome.ranks < int(k)).astype(np.float64), np.ones(len(outcome.ranks))
    direction, _, _ = name.partition("/")
    images = len(outcome.rows)
    of_query = {"image_to_text": np.arange(images), "text_to_image": outcome.owners}[direction]
    hits = np.bincount(of_query, weights=outcome.ranks[name] < int(k), minlength=images)
    return hits, np.bincount(of_query, minlength=images).astype(np.float64)


def intervals_of(outcome: Outcome, metrics: Iterable[str]) -> dict[str, Interval]:
    """The 95 % bootstrap interval of each metric, images resampled, the answers to choose from as they are."""
    names = list(metrics)
    intervals = _of_means(outcome, [name for name in names if name != PER_CLASS])
    if isinstance(outcome, ZeroShotOutcome) and PER_CLASS in names:
        per_class = bootstrap_mean_per_class((outcome.ranks < 1).astype(np.float64), outcome.labels)
        intervals[PER_CLASS] = interval(per_class)
    return intervals


def _of_means(outcome: Outcome, names: Sequence[str]) -> dict[str, Interval]:
    if not names:
        return {}
    columns = [hits_of(outcome, name) for name in names]
    draws = bootstrap_means(np.stack([hits for hits, _ in columns], 1), np.stack([counts for _, counts in columns], 1))
    return {name: interval(draws[:, column]) for column, name in enumerate(names)}
