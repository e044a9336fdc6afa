"""The table of scores."""

from littune.evaluation.report.markup import join
from littune.evaluation.report.scores import score_tables, short_names
from littune.evaluation.results import SHARE_OF_ENGLISH, Result
from tests.evaluation.report.conftest import Outline

LABELLED = Result(
    data="data/cifar10",
    task="zero_shot",
    num_images=1000,
    metrics={"accuracy@1": 0.5, "mean_per_class_accuracy": 0.25},
    intervals={"accuracy@1": (0.4, 0.6)},
)
PAIRS = Result(
    data="data/p.csv",
    task="retrieval",
    language="de",
    num_images=20,
    num_texts=50,
    metrics={
        "text_to_image/recall@1": 0.125,
        "text_to_image/recall_dedup@1": 0.5,
        "image_to_text/recall@1": 0.75,
        "image_to_text/recall@5": 1.0,
    },
)


def test_each_task_has_a_table_with_its_intervals() -> None:
    text = Outline(join(score_tables([PAIRS, LABELLED], {}))).text
    assert text == (
        "Zero-shot classification, % set accuracy@1 0 to 100 mean per class images "
        "data/cifar10 50.0 [40.0, 60.0] 25.0 1,000 "
        "Retrieval, % set recall@1 0 to 100 recall@5 images "
        "data/p.csv · de text → image 12.5 – 20 data/p.csv · de image → text 75.0 100.0 20"
    )


def test_a_set_without_a_score_has_a_dash() -> None:
    few = Result(data="few", task="zero_shot", num_images=1, metrics={})
    assert Outline(join(score_tables([few, LABELLED], {}))).text.count("–") == 2
    assert score_tables([few], {}) == []


def test_another_language_stands_beside_english() -> None:
    share = {"text_to_image/recall@1": 0.8125, "image_to_text/recall@1": 1.25}
    text = Outline(join(score_tables([PAIRS.with_findings(SHARE_OF_ENGLISH, share)], {}))).text
    assert "images recall@1, % of English" in text
    assert "text → image 12.5 – 20 81.2" in text and "image → text 75.0 100.0 20 125.0" in text


def test_names_are_as_short_as_they_may_be() -> None:
    assert short_names(["/a/b/c/test.tar", "/a/x", "y"]) == {"/a/b/c/test.tar": "c/test.tar", "/a/x": "a/x", "y": "y"}
    assert short_names(["/a/b/c", "/z/b/c"]) == {"/a/b/c": "/a/b/c", "/z/b/c": "/z/b/c"}
