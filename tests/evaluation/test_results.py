"""A result as JSON values: the schema that ``littune eval --json`` promises."""

import numpy as np

from littune.evaluation.results import Result, ZeroShotOutcome


def test_a_labelled_set_has_no_count_of_texts() -> None:
    result = Result(data="cifar10", task="zero_shot", num_images=10, metrics={"accuracy@1": 0.5})
    assert result.to_dict() == {
        "data": "cifar10",
        "task": "zero_shot",
        "num_images": 10,
        "metrics": {"accuracy@1": 0.5},
    }


def test_pairs_have_one() -> None:
    result = Result(data="p.csv", task="retrieval", num_images=2, num_texts=5, metrics={"text_to_image/recall@1": 1.0})
    assert result.to_dict() == {
        "data": "p.csv",
        "task": "retrieval",
        "num_images": 2,
        "num_texts": 5,
        "metrics": {"text_to_image/recall@1": 1.0},
    }


def test_a_labelled_set_says_which_classes_are_taken_for_which() -> None:
    outcome = ZeroShotOutcome(
        keys=["a", "b", "c", "d"],
        rows=np.arange(4),
        classnames=("cat", "dog", "cow"),
        labels=np.array([0, 0, 1, 2]),
        ranks=np.array([1, 2, 1, 0]),
        top=np.array([[1, 0], [1, 2], [2, 1], [2, 0]]),
        probabilities=np.ones((4, 2), np.float32),
        calibrated=np.ones(4, np.float32),
    )
    assert outcome.confused() == [
        {"right": "cat", "taken_for": "dog", "images": 2},
        {"right": "dog", "taken_for": "cow", "images": 1},
    ]
    assert outcome.confused(most=1) == outcome.confused()[:1]
    result = Result(data="x", task="zero_shot", num_images=4, metrics={"accuracy@1": 0.25}, outcome=outcome)
    assert result.to_dict()["confused"] == outcome.confused()
