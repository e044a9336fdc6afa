"""A result as JSON values: the schema that ``littune eval --json`` promises."""

from littune.evaluation.results import Result


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
