"""Tables of percents: every metric in its row and column, and nothing cut off."""

from dataclasses import replace

from littune.evaluation.results import Result
from littune.evaluation.tables import to_text

ZERO_SHOT = Result(
    data="cifar10",
    task="zero_shot",
    num_images=10_000,
    metrics={"accuracy@1": 0.4321, "accuracy@5": 0.9, "mean_per_class_accuracy": 0.25},
)
FEW_CLASSES = Result(data="two", task="zero_shot", num_images=2, metrics={"accuracy@1": 1.0})
RETRIEVAL = Result(
    data="flickr8k-1k/test-{00000..00001}.tar",
    task="retrieval",
    num_images=200,
    num_texts=1000,
    metrics={"text_to_image/recall@1": 0.27, "image_to_text/recall@1": 0.375, "image_to_text/recall_dedup@1": 0.4},
)


def rows_of(text: str) -> list[list[str]]:
    """The lines' cells, for cells that hold no two spaces in a row."""
    return [[cell for cell in line.strip().split("  ") if cell] for line in text.splitlines() if line.strip()]


def test_each_task_has_its_table() -> None:
    rows = [[cell.strip() for cell in row] for row in rows_of(to_text([ZERO_SHOT, RETRIEVAL, FEW_CLASSES]))]
    assert ["zero-shot classification, %"] in rows and ["retrieval, %"] in rows
    assert ["data", "images", "accuracy@1", "accuracy@5", "mean per class accuracy"] in rows
    assert ["cifar10", "10,000", "43.2", "90.0", "25.0"] in rows
    assert ["two", "2", "100.0", "-", "-"] in rows
    spec = "flickr8k-1k/test-{00000..00001}.tar"
    assert ["data", "images", "texts", "direction", "R@1", "dedup R@1"] in rows
    assert [spec, "200", "1,000", "text → image", "27.0", "-"] in rows
    assert [spec, "200", "1,000", "image → text", "37.5", "40.0"] in rows


def test_a_long_name_and_one_in_brackets_are_shown_whole() -> None:
    name = "/a/" + 30 * "very/long/" + "[bold]set[/bold]"
    assert name in to_text([Result(data=name, task="zero_shot", num_images=1, metrics={"accuracy@1": 0.0})])


def test_a_task_that_does_not_occur_has_no_table() -> None:
    assert "retrieval" not in to_text([ZERO_SHOT])
    assert to_text([]) == ""


def test_scores_under_a_condition_are_rows_of_their_own_and_other_findings_a_table() -> None:
    result = replace(
        ZERO_SHOT,
        intervals={"accuracy@1": (0.40, 0.46)},
        findings={"duplicates": {"accuracy@1": 0.4}, "calibration": {"ece": 0.01234}},
        language="de",
    )
    rows = [[cell.strip() for cell in row] for row in rows_of(to_text([result]))]
    assert ["data", "language", "scored", "images", "accuracy@1", "accuracy@5", "mean per class accuracy"] in rows
    assert ["cifar10", "de", "10,000", "43.2 ±3.0", "90.0", "25.0"] in rows
    assert ["cifar10", "de", "without near-duplicates", "10,000", "40.0", "-", "-"] in rows
    assert ["cifar10", "de", "calibration", "ece", "0.0123"] in rows


def test_counting_duplicates_for_every_owner_is_shown_where_it_makes_a_difference() -> None:
    same = {"text_to_image/recall@1": 0.5, "text_to_image/recall_dedup@1": 0.5}
    assert "dedup" not in to_text([replace(RETRIEVAL, metrics=same)])
    assert "dedup" in to_text([replace(RETRIEVAL, metrics=same | {"text_to_image/recall_dedup@1": 0.6})])
