"""Probes against big_vision's formula written out, scikit-learn's ridge, and sets that are known to be easy or hard."""

from typing import Literal

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from littune.base.errors import MissingExtraError
from littune.evaluation.checks import probe
from littune.evaluation.checks.probe import cross_validated, few_shot, linear_probe

BOTH: tuple[Literal["few_shot"], Literal["linear_probe"]] = ("few_shot", "linear_probe")


def _set(seed: int, n: int, dim: int, classes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Clouds of one shape around means that are the same for every seed; columns of very different scale."""
    means = np.random.default_rng(99).standard_normal((classes, dim))
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % classes)
    rows = means[labels] + spread * rng.standard_normal((n, dim))
    return (rows * np.geomspace(0.01, 100, dim) + 5).astype(np.float32), labels


def _big_vision(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray, l2: float) -> float:
    """The weights through eigenvalues of the Gram matrix, with the bias column."""
    mean, std = x.mean(axis=0), x.std(axis=0) + 1e-5
    rows = np.column_stack([(x - mean) / std, np.full(len(x), 100.0)])
    targets = np.where(np.arange(y.max() + 1) == y[:, None], 1.0, -1.0)
    eigenvalues, vectors = np.linalg.eigh(rows.T @ rows)
    weights = (vectors / (eigenvalues + l2)) @ vectors.T @ rows.T @ targets
    asked = np.column_stack([(x_test - mean) / std, np.full(len(x_test), 100.0)])
    return float(np.mean((asked @ weights).argmax(axis=1) == y_test))


@pytest.mark.parametrize(("n", "dim"), [(200, 12), (50, 80)])
@pytest.mark.parametrize("l2", [1024.0, 1.0])
def test_few_shot_is_big_visions_least_squares(monkeypatch: pytest.MonkeyPatch, n: int, dim: int, l2: float) -> None:
    monkeypatch.setattr(probe, "SHOTS", n)
    monkeypatch.setattr(probe, "_L2", l2)
    train, labels = _set(1, n, dim, classes=5, spread=3.0 if dim == 12 else 6.0)
    test, test_labels = _set(2, 1000, dim, classes=5, spread=3.0 if dim == 12 else 6.0)
    expected = _big_vision(train.astype(np.float64), labels, test.astype(np.float64), test_labels, l2)
    assert 0.3 < expected < 0.95
    assert np.mean(few_shot(train, labels, test, 0) == test_labels) == pytest.approx(expected, abs=1e-9)


def test_few_shots_are_drawn_from_each_class(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([0] * 50 + [1] * 3 + [2] * 50)
    rows = np.eye(3, dtype=np.float32)[labels]
    monkeypatch.setattr(probe, "SHOTS", 2)
    # Were the shots the first rows, or not per class, a class would be missing.
    assert few_shot(rows, labels, np.eye(3, dtype=np.float32), 0).tolist() == [0, 1, 2]
    train, labels = _set(3, 400, 30, classes=4, spread=5.0)
    test, test_labels = _set(4, 400, 30, classes=4, spread=5.0)
    assert len({few_shot(train, labels, test, seed).tobytes() for seed in range(5)}) > 1
    assert few_shot(train, labels, test, 0).tolist() == few_shot(train, labels, test, 0).tolist()
    scores = []
    for shots in (1, 10, 100):
        monkeypatch.setattr(probe, "SHOTS", shots)
        scores.append(np.mean(few_shot(train, labels, test, 0) == test_labels))
    assert 0.25 < scores[0] < scores[1] < scores[2]


def test_the_linear_probe_is_as_good_as_the_best_penalty() -> None:
    train, labels = _set(5, 600, 40, classes=6, spread=4.0)
    test, test_labels = _set(6, 2000, 40, classes=6, spread=4.0)
    scaler = StandardScaler().fit(train)
    by_penalty = [
        LogisticRegression(C=penalty, max_iter=1000)
        .fit(scaler.transform(train), labels)
        .score(scaler.transform(test), test_labels)
        for penalty in (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 100.0)
    ]
    score = np.mean(linear_probe(train, labels, test, 0) == test_labels)
    assert max(by_penalty) - 0.02 < score < 0.95
    assert score > min(by_penalty)


@pytest.mark.parametrize("which", BOTH)
def test_across_folds_no_image_is_classified_by_itself(which: Literal["few_shot", "linear_probe"]) -> None:
    rng = np.random.default_rng(7)
    rows, labels = rng.standard_normal((300, 400)).astype(np.float32), np.arange(300) % 3
    assert 0.2 < cross_validated(rows, labels, which=which) < 0.47  # labels that mean nothing cannot be guessed
    easy, labels = _set(8, 300, 20, classes=3, spread=0.5)
    assert cross_validated(easy, labels, which=which) > 0.99
    assert cross_validated(easy.astype(np.float16), labels, which=which) > 0.99


@pytest.mark.parametrize("which", BOTH)
def test_an_image_alone_in_its_class_counts_as_wrong(which: Literal["few_shot", "linear_probe"]) -> None:
    rows, labels = _set(9, 60, 20, classes=3, spread=0.1)
    kept = np.flatnonzero((labels < 2) | (np.arange(60) == np.argmax(labels == 2)))
    assert cross_validated(rows[kept], labels[kept], which=which) == 40 / 41
    two = np.array([0, 1])
    assert cross_validated(rows[:2], two, which=which) == 0
    assert np.isnan(cross_validated(rows[:0], labels[:0], which=which))


def test_two_images_of_a_class_are_never_in_one_fold() -> None:
    labels = np.repeat(np.arange(30), 2)
    rows = np.eye(30, dtype=np.float32)[labels]
    assert cross_validated(rows, labels, which="few_shot") == 1


def test_of_many_images_one_fold_is_classified_with_one_penalty(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int, float]] = []

    def fitted(train: np.ndarray, labels: np.ndarray, test: np.ndarray, penalty: float) -> np.ndarray:
        asked.append((len(train), len(test), penalty))
        return np.zeros(len(test), np.int64)

    monkeypatch.setattr(probe, "_MANY_IMAGES", 99)
    monkeypatch.setattr(probe, "_fitted", fitted)
    rows, labels = _set(11, 100, 4, classes=4, spread=1.0)
    assert cross_validated(rows, labels, which="linear_probe") == 1 / 4
    assert asked == [(80, 20, 0.1)]
    asked.clear()
    assert cross_validated(rows[:99], labels[:99], which="linear_probe") == pytest.approx(1 / 4, abs=0.01)
    assert len(asked) == 5 * 4


@pytest.mark.parametrize("which", BOTH)
def test_of_many_images_the_score_is_that_of_a_fold(
    monkeypatch: pytest.MonkeyPatch, which: Literal["few_shot", "linear_probe"]
) -> None:
    easy, labels = _set(8, 300, 20, classes=3, spread=0.5)
    monkeypatch.setattr(probe, "_MANY_IMAGES", 100)
    assert cross_validated(easy, labels, which=which) > 0.98


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "find_spec", lambda _: None)
    rows, labels = _set(10, 20, 4, classes=2, spread=1.0)
    with pytest.raises(MissingExtraError, match=r"pip install 'littune\[probe\]'"):
        linear_probe(rows, labels, rows, 0)
    assert np.mean(few_shot(rows, labels, rows, 0) == labels) > 0.5
