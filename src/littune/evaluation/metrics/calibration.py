"""Whether a model is as sure as it is right: calibration error, reliability, and a temperature that fits.

The temperature of contrastive tuning is fitted to telling apart the texts of a batch, not the classes of a task,
so a model's own probabilities on a task can be far off while its order of the classes is good. One factor on the
cosines, learned on half of the images and applied to the others, shows how much of the error it explains.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int64

from littune.evaluation.metrics.blocks import blocks

_COSINES_IN_A_BLOCK = 1 << 22
_LOWEST_SCALE, _HIGHEST_SCALE = 1e-2, 1e4
_MAX_STEPS = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The images whose confidence lies in one stretch of a reliability diagram."""

    count: int
    confidence: float
    """The mean confidence; NaN in an empty bin."""
    accuracy: float
    """The share that is right; NaN in an empty bin."""


def reliability(confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = 15) -> list[Bin]:
    """Bins of equal width from 0 to 1; each holds its upper edge.

    Args:
        confidence: the probability of the class that was chosen.
        right: whether that class is right.
        bins: how many there are.
    """
    # In the precision that the confidence came in, 0.2f would lie beyond an edge of 0.2.
    edges = np.linspace(0, 1, bins + 1).astype(confidence.dtype)
    places = np.searchsorted(edges[1:-1], confidence, side="left")
    counts = np.bincount(places, minlength=bins)
    sure = np.bincount(places, weights=confidence, minlength=bins)
    hits = np.bincount(places, weights=right, minlength=bins)
    return [
        Bin(
            count=int(count),
            confidence=float(total / count) if count else np.nan,
            accuracy=float(hit / count) if count else np.nan,
        )
        for count, total, hit in zip(counts, sure, hits, strict=True)
    ]


def expected_calibration_error(
    confidence: Float[np.ndarray, " n"], right: Bool[np.ndarray, " n"], bins: int = 15
) -> float:
    """How far confidence and accuracy lie apart in a bin of ``reliability``, averaged over the images.

    Returns:
        A fraction; NaN where there are no images.
    """
    if not len(confidence):
        return np.nan
    filled = [one for one in reliability(confidence, right, bins) if one.count]
    return sum(one.count * abs(one.confidence - one.accuracy) for one in filled) / len(confidence)


def fit_scale(
    cosines: Float[np.ndarray, "n classes"],
    right: Bool[np.ndarray, "n classes"] | Int[np.ndarray, " n"],
    start: float = 100.0,
) -> float:
    """The factor on the cosines under which the right classes are likeliest (softmax over the classes).

    With one right class for each image the likelihood has one optimum; Newton's steps find it, halving where they
    would leave the stretch that is known to hold it. Where several classes are right, their probabilities add up.
    Where every right class is ahead the likelihood grows without end, and the factor is merely large.

    Args:
        cosines: of each image and each class.
        right: each image's right class, or for each class whether it is right; every image has one.
        start: where to begin looking; returned as it is where there are no images.

    Returns:
        A factor from 0.01 to 10,000.
    """
    rows, classes = _pairs_of(right)
    assert np.array_equal(np.unique(rows), np.arange(len(cosines))), "an image without a right class"
    if not len(cosines):
        return start
    low, high, scale = _LOWEST_SCALE, _HIGHEST_SCALE, start
    for _ in range(_MAX_STEPS):
        slope, bend = _derivatives(cosines, rows, classes, scale)
        if not slope:
            return scale
        low, high = (low, scale) if slope > 0 else (scale, high)
        newton = scale - slope / bend if bend > 0 else np.inf
        following = newton if low < newton < high else float(np.sqrt(low * high))
        if abs(following - scale) <= 1e-5 * scale:
            return following
        scale = following
    return scale


def cross_fitted(
    cosines: Float[np.ndarray, "n classes"],
    right: Bool[np.ndarray, "n classes"] | Int[np.ndarray, " n"],
    *,
    seed: int = 0,
) -> tuple[Float32[np.ndarray, " n"], float]:
    """Confidence under a temperature that was learned on other images: ``fit_scale`` on each half, for the other.

    Args:
        cosines: of each image and each class.
        right: as for ``fit_scale``.
        seed: of the halves.

    Returns:
        The probability of each image's likeliest class, and the mean of the two factors.
    """
    confidence = np.empty(len(cosines), np.float32)
    halves = np.array_split(np.random.default_rng(seed).permutation(len(cosines)), 2)
    scales = []
    for learned, applied in (halves, halves[::-1]):
        scales.append(fit_scale(cosines[learned], right[learned]))
        for block in blocks(len(applied), cosines.shape[1], _COSINES_IN_A_BLOCK):
            confidence[applied[block]] = _confidence(cosines[applied[block]], scales[-1])
    return confidence, float(np.mean(scales))


def _pairs_of(
    right: Bool[np.ndarray, "n classes"] | Int[np.ndarray, " n"],
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
    """The images and their right classes, image by image."""
    if right.ndim == 1:
        return np.arange(len(right)), right.astype(np.int64)
    rows, classes = np.nonzero(right)
    return rows, classes


def _derivatives(
    cosines: Float[np.ndarray, "n classes"],
    rows: Int64[np.ndarray, " pairs"],
    classes: Int64[np.ndarray, " pairs"],
    scale: float,
) -> tuple[float, float]:
    """The first and second derivative of the mean negative log-likelihood by the scale."""
    slope = bend = 0.0
    for block in blocks(len(cosines), cosines.shape[1], _COSINES_IN_A_BLOCK):
        some = cosines[block]
        mean, variance = _moments(some, scale)
        pairs = slice(*np.searchsorted(rows, (block.start, block.stop)))
        right_mean, right_variance = _moments_of_lists(
            some[rows[pairs] - block.start, classes[pairs]], rows[pairs] - block.start, scale
        )
        slope += float(np.sum(mean - right_mean))
        bend += float(np.sum(variance - right_variance))
    return slope / len(cosines), bend / len(cosines)


def _moments(
    cosines: Float[np.ndarray, "n classes"], scale: float
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Mean and variance of each row's cosines, weighted by the softmax of the scaled cosines."""
    best = cosines.max(axis=1, keepdims=True)
    below = cosines - best
    weights = np.exp(scale * below)
    totals = weights.sum(axis=1, dtype=np.float64)
    first = np.einsum("nc,nc->n", weights, below) / totals
    second = np.einsum("nc,nc,nc->n", weights, below, below) / totals
    return best[:, 0] + first, second - first**2


def _moments_of_lists(
    cosines: Float[np.ndarray, " pairs"], rows: Int64[np.ndarray, " pairs"], scale: float
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """The same where each row has a list of its own, one after another."""
    best = np.full(rows[-1] + 1, -np.inf)
    np.maximum.at(best, rows, cosines)
    below = cosines - best[rows]
    weights = np.exp(scale * below)
    totals = np.bincount(rows, weights)
    first = np.bincount(rows, weights * below) / totals
    second = np.bincount(rows, weights * below**2) / totals
    return best + first, second - first**2


def _confidence(cosines: Float[np.ndarray, "n classes"], scale: float) -> Float[np.ndarray, " n"]:
    confidence: np.ndarray = 1 / np.exp(scale * (cosines - cosines.max(axis=1, keepdims=True))).sum(axis=1)
    return confidence
