"""A task's scores against clip-benchmark's and a slow, obvious count: ties, several right classes, blocks."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from clip_benchmark.metrics import zeroshot_classification
from torch import Tensor, nn

from littune.base.errors import InputError
from littune.evaluation import classification
from littune.evaluation.classification import Task, score_classification
from littune.evaluation.metrics.calibration import cross_fitted
from littune.evaluation.results import ZeroShotOutcome
from littune.evaluation.sets import stores
from littune.evaluation.sets.labels import Labels
from littune.evaluation.sets.stores import project
from littune.store.writer import Row
from littune.towers.image.tower import ImageTower, Preprocess
from tests.evaluation.conftest import ColorReader, MakeStore

DIM, CLASSES = 37, 100
Right = Sequence[tuple[int, ...]]


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class MeanOften(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.mean(dim=(1, 2, 3))[:, None].expand(-1, DIM)


def wide_tower() -> ImageTower:
    preprocess = Preprocess(size=8, resize=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return ImageTower.from_module(MeanOften(), preprocess=preprocess, name="mean-often")


def drawn_classifier(seed: int = 0) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((CLASSES, DIM)))


def some_right(num: int, *, most: int) -> list[tuple[int, ...]]:
    """One to ``most`` right classes for each image."""
    rng = np.random.default_rng(1)
    return [tuple(rng.choice(CLASSES, rng.integers(1, most + 1), replace=False).tolist()) for _ in range(num)]


def make_task(model: ColorReader, make_store: MakeStore, right: Right, names: Sequence[str] = ()) -> Task:
    """Images near the classifier of seed 0, in so many dimensions that a matrix product rounds at its edges."""
    names = tuple(names) or tuple(f"name {number}" for number in range(CLASSES))
    rng = np.random.default_rng(2)
    images = np.stack([drawn_classifier()[its[0] if its else 0] for its in right])
    images = images + 0.4 * rng.standard_normal(images.shape)
    rows = [Row(key=str(number), source="s", label=its[0] if its else 0) for number, its in enumerate(right)]
    model.center = torch.zeros(DIM)
    store = make_store(rows, images, classnames=names, tower=wide_tower())
    return Task(model=model, store=store, labels=Labels(classnames=names, right=tuple(right)), name="a set")


def obvious_ranks(task: Task, classifier: np.ndarray, right: Right) -> list[int]:
    """The wrong classes that are not below the best right one, image by image."""
    ranks = []
    images = np.concatenate(list(project(task.model, task.store)))
    for image, its in zip(images, right, strict=True):
        scores = [float(np.dot(image, direction)) for direction in classifier]
        best = max(scores[number] for number in its)
        ranks.append(sum(score >= best for number, score in enumerate(scores) if number not in its))
    return ranks


def test_metrics_are_clip_benchmarks(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore
) -> None:
    right = [(number % CLASSES,) for number in range(400)]
    task, classifier = make_task(model, make_store, right), drawn_classifier()
    logits = torch.from_numpy(np.concatenate(list(project(model, task.store))) @ classifier.T)
    labels = torch.tensor([number for (number,) in right])
    # numpy 2.4 no longer lets float() take an array of one number, which clip-benchmark 1.6 relies on.
    monkeypatch.setattr(zeroshot_classification, "float", lambda number: number.item(), raising=False)
    first, fifth = zeroshot_classification.accuracy(logits, labels, topk=(1, 5))
    balanced = zeroshot_classification.balanced_accuracy_score(labels, logits.argmax(dim=1))
    metrics = task.metrics(task.ranks(classifier))
    assert metrics == {"accuracy@1": first, "accuracy@5": fifth, "mean_per_class_accuracy": balanced}
    assert 0 < first < fifth < 1


def test_the_best_of_several_right_classes_counts(model: ColorReader, make_store: MakeStore) -> None:
    right = some_right(60, most=4)
    task = make_task(model, make_store, right)
    assert task.ranks(drawn_classifier()).tolist() == obvious_ranks(task, drawn_classifier(), right)


def test_images_without_a_right_class_are_left_out(model: ColorReader, make_store: MakeStore) -> None:
    right = some_right(50, most=2)
    gaps: list[tuple[int, ...]] = [its if number % 3 else () for number, its in enumerate(right)]
    task = make_task(model, make_store, gaps)
    assert task.rows.tolist() == [number for number in range(50) if number % 3]
    expected = [rank for rank, its in zip(obvious_ranks(task, drawn_classifier(), right), gaps, strict=True) if its]
    assert task.ranks(drawn_classifier()).tolist() == expected
    with pytest.raises(InputError, match="a set has no image whose right class"):
        Task(model=model, store=task.store, labels=Labels(classnames=("a",), right=((),) * 50), name="a set")


@pytest.mark.parametrize("twins", [(3, 99), (0, 1), (17, 98)])
def test_classes_of_equal_directions_tie_wherever_they_stand(
    model: ColorReader, make_store: MakeStore, twins: tuple[int, int]
) -> None:
    # A matrix product may round the same dot product differently at its edges; a tie must not be lost by that.
    classifier = drawn_classifier()
    classifier[twins[1]] = classifier[twins[0]]
    task = make_task(model, make_store, [(twin,) for twin in twins] * 150)
    assert (task.ranks(classifier) >= 1).all()
    for _, cosines in task.cosines(classifier):
        assert np.array_equal(cosines[:, twins[0]], cosines[:, twins[1]])


def test_classes_of_one_name_have_one_direction(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore
) -> None:
    names = [f"name {number}" for number in range(CLASSES)]
    names[99] = names[3]
    task = make_task(model, make_store, [(3,), (99,)] * 100, names)
    rng = np.random.default_rng(0)
    directions = dict(zip((f"a {name}." for name in names), drawn_classifier(), strict=True))
    directions["a name 3."] = drawn_classifier()[3]

    def encode_text(texts: Sequence[str]) -> np.ndarray:
        # A tower's batch, or its head's product, moves the last digits of the same text.
        return unit(np.stack([directions[text] for text in texts]) + 1e-6 * rng.standard_normal((len(texts), DIM)))

    monkeypatch.setattr(model, "encode_text", encode_text)
    result = score_classification(task, ["a {}."], canonical=False, details=False, sensitivity=False, cache=None)
    assert result.metrics["accuracy@1"] == 0 < result.metrics["accuracy@5"]


@pytest.mark.parametrize("rows_of_store", [64, 8192])
def test_a_block_is_no_larger_than_it_may_be_whatever_the_number_of_classes(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore, rows_of_store: int
) -> None:
    right = some_right(300, most=2)
    right[10:90] = [()] * 80
    task = make_task(model, make_store, right)
    expected = task.ranks(drawn_classifier())
    monkeypatch.setattr(classification, "_COSINES_IN_A_BLOCK", 25 * CLASSES)
    monkeypatch.setattr(stores, "_BLOCK", rows_of_store)
    found = list(task.cosines(drawn_classifier()))
    assert max(len(cosines) for _, cosines in found) == 25
    assert [row for block, _ in found for row in range(block.start, block.stop)] == list(range(220))
    assert all(block.stop - block.start == len(cosines) for block, cosines in found)
    assert task.ranks(drawn_classifier()).tolist() == expected.tolist()


def scored(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore, right: Right
) -> tuple[Task, ZeroShotOutcome, dict[str, float]]:
    """A task, what came out for each image, and its calibration."""
    task = make_task(model, make_store, right)
    monkeypatch.setattr(model, "encode_text", lambda texts: drawn_classifier())
    result = score_classification(task, ["{}"], canonical=False, details=True, sensitivity=False, cache=None)
    assert isinstance(result.outcome, ZeroShotOutcome)
    return task, result.outcome, dict(result.findings["calibration"])


@pytest.mark.parametrize("most", [1, 4])
def test_the_temperature_is_learned_from_every_right_class(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore, most: int
) -> None:
    right = some_right(300, most=most)
    # The class that an image is near is not the first of the right ones.
    task, outcome, found = scored(monkeypatch, model, make_store, right)
    right = tuple(its[::-1] for its in right)
    task = Task(model=model, store=task.store, labels=Labels(classnames=task.labels.classnames, right=right), name="a")
    result = score_classification(task, ["{}"], canonical=False, details=True, sensitivity=False, cache=None)
    images = np.concatenate(list(project(model, task.store)))
    mask = np.array([[number in its for number in range(CLASSES)] for its in right])
    confidence, scale = cross_fitted(images @ drawn_classifier().T, mask)
    for calibrated, learned in (
        (outcome.calibrated, found["learned temperature"]),
        (result.outcome.calibrated, result.findings["calibration"]["learned temperature"]),
    ):
        assert learned == pytest.approx(scale, rel=1e-4)
        np.testing.assert_allclose(calibrated, confidence, rtol=1e-3)


@pytest.mark.parametrize("most", [1, 4])
def test_of_many_images_some_are_calibrated(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore, most: int
) -> None:
    monkeypatch.setattr(classification, "_MAX_COSINES", 100 * CLASSES)
    monkeypatch.setattr(classification, "_COSINES_IN_A_BLOCK", 25 * CLASSES)
    _, outcome, found = scored(monkeypatch, model, make_store, some_right(250, most=most))
    assert np.flatnonzero(~np.isnan(outcome.calibrated)).tolist() == list(range(0, 250, 3))
    assert np.isfinite(list(found.values())).all()


def test_what_came_out_is_the_highest_classes_and_their_softmax(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore
) -> None:
    task, outcome, _ = scored(monkeypatch, model, make_store, some_right(50, most=2))
    cosines = np.concatenate(list(project(model, task.store))).astype(np.float64) @ drawn_classifier().T
    exponentials = np.exp(model.logit_scale * cosines)
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    assert outcome.top.tolist() == np.argsort(-cosines, axis=1)[:, :5].tolist()
    expected = -np.sort(-probabilities, axis=1)[:, :5]
    np.testing.assert_allclose(outcome.probabilities, expected, rtol=1e-4)
