"""What the image tower alone can do with labels: how much there is to be read out.

A text tower reads out what the locked image tower knows, so these are scores to hold zero-shot accuracy against:
few-shot least squares as in big_vision's evaluator, and logistic regression on all labels.
"""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Literal

import numpy as np
from jaxtyping import Float, Float64, Int, Int64

from littune.base.errors import MissingExtraError

SHOTS = 10
"""How many labelled images of each class few-shot probes learn from."""

_L2 = 1024.0
# A large constant column, so that the bias is all but free of the penalty.
_BIAS = 100.0
# Of the squared weights beside the mean loss. On 4,000 images of CIFAR-10 (EfficientNet-Lite0) 0.1 is best (74.6 %),
# 0.3 as good, 1 and 0.01 lose a point; on 186 of clothing 0.01 is (68 %).
_PENALTIES = (0.01, 0.1, 1.0)
_HELD_OUT = 5
_MANY_IMAGES = 20_000
_MAX_ITERATIONS = 200


def check_installed() -> None:
    """Check that the linear probe can run, before anything else is spent.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    if find_spec("sklearn") is None:
        raise MissingExtraError("a linear probe", "probe")


def cross_validated(
    embeddings: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    *,
    which: Literal["few_shot", "linear_probe"],
    folds: int = 5,
    seed: int = 0,
) -> float:
    """Accuracy over all images of a set without training rows: each is classified by what the other folds taught.

    Each class is spread evenly over the folds. An image that is alone in its class counts as wrong. Of more than
    20,000 images, one fold alone is classified, and the linear probe's penalty is 0.1 instead of chosen: all folds with
    all penalties would take hours, and a fold is 4,000 images or more.

    Args:
        embeddings: raw embeddings.
        labels: their classes.
        which: the probe.
        folds: how many parts there are.
        seed: of the folds and of the probe.

    Raises:
        MissingExtraError: a linear probe, and scikit-learn is not installed.
    """
    if not len(labels):
        return np.nan
    many = len(labels) > _MANY_IMAGES
    predict = (_PROBES_OF_MANY if many else _PROBES)[which]
    fold_of = _spread(labels, folds, seed)
    right = np.zeros(len(labels), dtype=bool)
    for fold in range(1 if many else min(folds, len(labels))):
        test, train = fold_of == fold, np.flatnonzero(fold_of != fold)
        if len(train):
            right[test] = predict(embeddings[train], labels[train], embeddings[test], seed) == labels[test]
    return float(np.mean(right[fold_of == 0] if many else right))


def few_shot(
    train: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], test: Float[np.ndarray, "m d"], seed: int
) -> Int[np.ndarray, " m"]:
    """Classes by least squares on ``SHOTS`` images of each class, with big_vision's scaling, penalty and bias.

    Args:
        train: raw embeddings to choose from.
        labels: their classes.
        test: raw embeddings to classify.
        seed: of the choice.
    """
    chosen = _few_of_each(labels, SHOTS, seed)
    return _least_squares(train[chosen], labels[chosen], test, _L2)


def linear_probe(
    train: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    test: Float[np.ndarray, "m d"],
    seed: int,
    penalties: Sequence[float] = _PENALTIES,
) -> Int[np.ndarray, " m"]:
    """Classes by logistic regression on standardised embeddings; of several penalties a fifth of ``train`` chooses.

    Args:
        train: raw embeddings to learn from.
        labels: their classes.
        test: raw embeddings to classify.
        seed: of the fifth.
        penalties: on the squared weights, beside the mean loss.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    held_out = _spread(labels, _HELD_OUT, seed) == 0
    if len(penalties) == 1 or held_out.all():
        return _fitted(train, labels, test, penalties[0])
    shares = [
        np.mean(_fitted(train[~held_out], labels[~held_out], train[held_out], penalty) == labels[held_out])
        for penalty in penalties
    ]
    return _fitted(train, labels, test, penalties[int(np.argmax(shares))])


def _least_squares(
    train: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], test: Float[np.ndarray, "m d"], l2: float
) -> Int[np.ndarray, " m"]:
    known, test_rows = (np.pad(rows, ((0, 0), (0, 1)), constant_values=_BIAS) for rows in _standardised(train, test))
    classes, numbers = np.unique(labels, return_inverse=True)
    targets = 2.0 * np.eye(len(classes))[numbers] - 1
    penalty = l2 * np.eye(min(known.shape))
    # The same weights from the smaller of the two systems.
    if len(known) >= known.shape[1]:
        weights = np.linalg.solve(known.T @ known + penalty, known.T @ targets)
    else:
        weights = known.T @ np.linalg.solve(known @ known.T + penalty, targets)
    predicted: np.ndarray = classes[np.argmax(test_rows @ weights, axis=1)]
    return predicted


def _fitted(
    train: Float[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], test: Float[np.ndarray, "m d"], penalty: float
) -> Int[np.ndarray, " m"]:
    check_installed()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if labels.min() == labels.max():
        return np.full(len(test), labels[0])
    known, asked = (rows.astype(np.float32) for rows in _standardised(train, test))
    model = LogisticRegression(C=1 / (penalty * len(known)), max_iter=_MAX_ITERATIONS)
    with warnings.catch_warnings():
        # The last digits of the weights change no accuracy.
        warnings.simplefilter("ignore", ConvergenceWarning)
        predicted: np.ndarray = model.fit(known, labels).predict(asked)
    return predicted


_Probe = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
_PROBES: dict[str, _Probe] = {"few_shot": few_shot, "linear_probe": linear_probe}
_PROBES_OF_MANY: dict[str, _Probe] = {
    "few_shot": few_shot,
    "linear_probe": partial(linear_probe, penalties=_PENALTIES[1:2]),
}


def _standardised(
    train: Float[np.ndarray, "n d"], test: Float[np.ndarray, "m d"]
) -> tuple[Float64[np.ndarray, "n d"], Float64[np.ndarray, "m d"]]:
    """Both moved and scaled so that each column of ``train`` has mean 0 and deviation 1."""
    known = train.astype(np.float64)
    mean, deviation = known.mean(axis=0), known.std(axis=0) + 1e-5
    return (known - mean) / deviation, (test.astype(np.float64) - mean) / deviation


def _few_of_each(labels: Int[np.ndarray, " n"], shots: int, seed: int) -> Int64[np.ndarray, " chosen"]:
    """The rows of at most ``shots`` images of each class, drawn by the seed."""
    order = _shuffled_by_class(labels, seed)
    grouped = labels[order]
    places: np.ndarray = np.arange(len(order)) - np.searchsorted(grouped, grouped)
    chosen: np.ndarray = order[places < shots]
    return chosen


def _spread(labels: Int[np.ndarray, " n"], parts: int, seed: int) -> Int64[np.ndarray, " n"]:
    """A part for each row: each class, and all rows, spread over the parts as evenly as can be."""
    numbers = np.empty(len(labels), np.int64)
    numbers[_shuffled_by_class(labels, seed)] = np.arange(len(labels)) % parts
    return numbers


def _shuffled_by_class(labels: Int[np.ndarray, " n"], seed: int) -> Int64[np.ndarray, " n"]:
    """The rows class by class, each class in an order of its own."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    order: np.ndarray = shuffled[np.argsort(labels[shuffled], kind="stable")]
    return order
