"""What images add up to is the metric itself, and intervals lie around it."""

import numpy as np
import pytest

from littune.evaluation.metrics.ranks import mean_per_class, share_within
from littune.evaluation.per_image import hits_of, intervals_of
from littune.evaluation.results import RetrievalOutcome, ZeroShotOutcome


def labelled(num: int = 60, seed: int = 0) -> ZeroShotOutcome:
    rng = np.random.default_rng(seed)
    labels = rng.choice(4, num, p=[0.6, 0.2, 0.15, 0.05])
    return ZeroShotOutcome(
        keys=[str(key) for key in range(num)],
        rows=np.arange(num),
        classnames=("a", "b", "c", "d"),
        labels=labels,
        ranks=rng.integers(0, 3, num),
        top=np.zeros((num, 1), np.int64),
        probabilities=np.ones((num, 1), np.float32),
        calibrated=np.ones(num, np.float32),
    )


def pairs(seed: int = 0) -> RetrievalOutcome:
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.repeat(np.arange(30), rng.integers(1, 5, 30)))
    names = ("text_to_image", len(owners)), ("image_to_text", 30)
    return RetrievalOutcome(
        keys=[str(key) for key in range(30)],
        rows=np.arange(30),
        captions=["x"] * len(owners),
        owners=owners,
        ranks={f"{way}/{kind}": rng.integers(0, 8, n) for way, n in names for kind in ("recall", "recall_dedup")},
        top_images=np.zeros((len(owners), 1), np.int64),
        top_texts=np.zeros((30, 1), np.int64),
    )


def test_the_images_of_a_labelled_set_add_up_to_its_scores() -> None:
    outcome = labelled()
    expected = {f"accuracy@{k}": share_within(outcome.ranks, k) for k in (1, 2)}
    expected["mean_per_class_accuracy"] = mean_per_class(outcome.ranks, outcome.labels)
    for metric, value in expected.items():
        hits, counts = hits_of(outcome, metric)
        assert len(hits) == len(counts) == 60
        assert hits.sum() / counts.sum() == pytest.approx(value)


def test_the_images_of_pairs_add_up_to_its_scores_with_their_texts_together() -> None:
    outcome = pairs()
    for name, ranks in outcome.ranks.items():
        hits, counts = hits_of(outcome, f"{name}@3")
        assert len(hits) == len(counts) == 30
        assert hits.sum() / counts.sum() == pytest.approx(share_within(ranks, 3))
    _, counts = hits_of(outcome, "text_to_image/recall@1")
    assert counts.tolist() == np.bincount(outcome.owners).tolist()


@pytest.mark.parametrize("outcome", [labelled(), pairs()], ids=["labelled", "pairs"])
def test_an_interval_lies_around_its_score(outcome: ZeroShotOutcome | RetrievalOutcome) -> None:
    names = (
        ["accuracy@1", "mean_per_class_accuracy"]
        if isinstance(outcome, ZeroShotOutcome)
        else [f"{name}@2" for name in outcome.ranks]
    )
    intervals = intervals_of(outcome, names)
    assert list(intervals) == names
    for name, (low, high) in intervals.items():
        hits, counts = hits_of(outcome, name)
        assert 0 <= low < hits.sum() / counts.sum() < high <= 1
        assert high - low > 0.05


@pytest.mark.parametrize("outcome", [labelled(), pairs()], ids=["labelled", "pairs"])
def test_of_no_metrics_there_are_no_intervals(outcome: ZeroShotOutcome | RetrievalOutcome) -> None:
    # Where every k is beyond the number of answers.
    assert intervals_of(outcome, []) == {}


def test_a_metric_that_there_is_not_is_our_own_bug() -> None:
    with pytest.raises(KeyError):
        hits_of(pairs(), "text_to_images/recall@1")
    with pytest.raises(AssertionError, match="precision"):
        hits_of(labelled(), "precision@1")


def test_more_images_narrow_an_interval_as_the_square_root() -> None:
    few, many = (intervals_of(labelled(num), ["accuracy@1"])["accuracy@1"] for num in (100, 1600))
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(4, rel=0.3)
