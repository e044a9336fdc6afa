"""How sure a score is: bootstrap intervals, and whether two models differ.

An image and everything that was asked about it are drawn together (a cluster bootstrap): five captions of one
image are not five independent trials. Two runs on the same images are compared image by image, which shows
smaller differences than their two intervals do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Real

Interval = tuple[float, float]
"""The lower end and the upper one."""

_WEIGHTS_IN_A_BLOCK = 1 << 21
_NUM_FLIPS = 10_000
_MOST_SIGNS_TO_ENUMERATE = 12


@dataclass(frozen=True, kw_only=True)
class Paired:
    """How a second run differs from a first on the same images."""

    difference: float
    """The second's mean score minus the first's."""
    interval: Interval
    """The 95 % bootstrap interval of the difference."""
    p_value: float
    """How often a difference at least as large comes up when each image's two scores are swapped by chance."""


def bootstrap_means(
    hits: Real[np.ndarray, "n m"] | Bool[np.ndarray, "n m"],
    counts: Real[np.ndarray, "n m"] | Bool[np.ndarray, "n m"],
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Float64[np.ndarray, "draws m"]:
    """Each column's sum of hits over its sum of counts, for draws of n images with replacement.

    Memory is O(n + draws). Equal n and seed draw the same images, so columns of different calls belong together.

    Args:
        hits: how many of an image's queries were hits.
        counts: how many queries the image has.
        num_draws: how often to draw.
        seed: of the draws.

    Returns:
        Fractions; NaN where a draw has no query.
    """
    columns = np.concatenate([hits, counts], axis=1).astype(np.float64)
    sums = [weights @ columns for weights in _draws(len(hits), num_draws, seed)]
    of_hits, of_counts = np.split(np.concatenate(sums), 2, axis=1)
    return _quotients(of_hits, of_counts)


def bootstrap_mean_per_class(
    hits: Real[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    labels: Int[np.ndarray, " n"],
    *,
    num_draws: int = 1000,
    seed: int = 0,
) -> Float64[np.ndarray, " draws"]:
    """The share of hits within each class, averaged over the classes that occur in a draw of n images.

    Args:
        hits: whether an image was a hit.
        labels: its class.
        num_draws: how often to draw.
        seed: of the draws.

    Returns:
        Fractions; NaN where there are no images.
    """
    if not len(hits):
        return np.full(num_draws, np.nan)
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order[0]] - 1))
    means = []
    for weights in _draws(len(hits), num_draws, seed):
        of_class = weights[:, order]
        counts = np.add.reduceat(of_class, starts, axis=1)
        shares = _quotients(np.add.reduceat(of_class * hits[order], starts, axis=1), counts)
        means.append(np.nanmean(shares, axis=1))
    return np.concatenate(means)


def interval(draws: Real[np.ndarray, " draws"], level: float = 0.95) -> Interval:
    """The middle share ``level`` of the draws; draws that are NaN do not count, and of none the interval is NaN."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return (np.nan, np.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def paired_test(
    first: Real[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    second: Real[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    counts: Real[np.ndarray, " n"] | None = None,
    *,
    seed: int = 0,
) -> Paired:
    """Compare two runs that were scored on the same images.

    The p-value is of the two-sided sign-flip test: were the runs alike, an image's difference would as often be
    the other way round. It is exact where at most 12 images differ, else from 10,000 draws (so never below 1e-4).

    Args:
        first: each image's mean score under the first run.
        second: the same under the second.
        counts: how many queries each mean is of; 1 by default.
        seed: of the draws.
    """
    weights = np.ones(len(first)) if counts is None else counts.astype(np.float64)
    gains = weights * (second.astype(np.float64) - first.astype(np.float64))
    means = bootstrap_means(gains[:, None], weights[:, None], seed=seed)[:, 0]
    total = weights.sum()
    difference = float(gains.sum() / total) if total else np.nan
    return Paired(difference=difference, interval=interval(means), p_value=_sign_flip_p_value(gains, seed))


def _draws(num_images: int, num_draws: int, seed: int) -> Iterator[Float64[np.ndarray, "draws n"]]:
    """How often each image was drawn, some draws at a time."""
    rng = np.random.default_rng(seed)
    step = max(1, _WEIGHTS_IN_A_BLOCK // max(1, num_images))
    for start in range(0, num_draws, step):
        weights = np.zeros((min(step, num_draws - start), num_images))
        for row in weights:
            # Counting n drawn numbers is several times as fast as numpy's multinomial.
            row[:] = np.bincount(rng.integers(max(1, num_images), size=num_images), minlength=num_images)
        yield weights


def _quotients(sums: Float[np.ndarray, "a b"], counts: Float[np.ndarray, "a b"]) -> Float64[np.ndarray, "a b"]:
    quotients: np.ndarray = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return quotients


def _sign_flip_p_value(gains: Float64[np.ndarray, " n"], seed: int) -> float:
    sizes = np.abs(gains[gains != 0])
    observed = abs(gains.sum()) - 1e-9 * sizes.sum()  # sums of equal numbers in another order are equal
    if len(sizes) <= _MOST_SIGNS_TO_ENUMERATE:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(sizes))))
        return float(np.mean(np.abs(signs @ sizes) >= observed))
    as_far = sum(np.count_nonzero(np.abs(sums) >= observed) for sums in _flipped_sums(sizes, seed))
    return float((as_far + 1) / (_NUM_FLIPS + 1))


def _flipped_sums(sizes: Float64[np.ndarray, " n"], seed: int) -> Iterator[Float64[np.ndarray, " flips"]]:
    """Sums of the sizes under random signs; of k equal sizes, only how many are positive has to be drawn."""
    rng = np.random.default_rng(seed)
    distinct, numbers = np.unique(np.round(sizes / sizes.max(), 12), return_counts=True)
    step = max(1, _WEIGHTS_IN_A_BLOCK // len(distinct))
    for start in range(0, _NUM_FLIPS, step):
        positive = rng.binomial(numbers, 0.5, size=(min(step, _NUM_FLIPS - start), len(distinct)))
        yield (2 * positive - numbers) @ (distinct * sizes.max())
