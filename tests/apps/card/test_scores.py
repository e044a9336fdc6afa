"""Scores as a table."""

from littune.apps.card.scores import scores_table


def test_scores_are_percents_with_their_intervals() -> None:
    results = [
        {
            "data": "/home/alice/flickr|test",
            "task": "retrieval",
            "language": "de",
            "num_images": 1200,
            "metrics": {"text_to_image/recall@1": 0.2704, "text_to_image/recall_dedup@1": 0.3},
            "intervals": {"text_to_image/recall@1": [0.24, 0.31]},
        },
        {"data": "cifar10", "task": "zero_shot", "num_images": 10, "metrics": {"accuracy@1": 1.0}},
    ]
    assert scores_table(results).splitlines()[2:] == [
        "| `flickr¦test` in `de` | retrieval | 1,200 | `text_to_image/recall@1` | 27.0 | 24.0 to 31.0 |",
        "| `cifar10` | zero-shot classification | 10 | `accuracy@1` | 100.0 | – |",
    ]
