"""A labelled set's details, counted by hand."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from littune.evaluation.report.labelled import class_scores, confusion, labelled_details, most_confused
from littune.evaluation.report.markup import join
from littune.evaluation.results import ZeroShotOutcome
from tests.evaluation.report.conftest import NASTY, CheckPage


def test_classes_with_images_come_worst_first(colors: ZeroShotOutcome) -> None:
    assert [(score.name, score.right, score.images) for score in class_scores(colors)] == [
        ("blue", 0, 1),
        ("green", 1, 2),
        ("red", 2, 3),
    ]


def test_confusion_counts_what_was_taken_for_what(colors: ZeroShotOutcome) -> None:
    assert confusion(colors).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_another_right_class_is_no_confusion(colors: ZeroShotOutcome) -> None:
    """The first red image is right as green, too, and was taken for it."""
    both = replace(colors, top=np.array([[1, 0], *colors.top[1:].tolist()]))
    assert confusion(both).tolist() == [[1, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_a_few_classes_are_all_shown(colors: ZeroShotOutcome, check_page: CheckPage) -> None:
    text = check_page(join(labelled_details(colors))).text
    assert "blue 0.0 0 of 1 green 50.0 1 of 2 red 66.7 2 of 3" in text
    assert "red 67 33" in text and "white 0" not in text


def test_of_many_classes_the_ends_are_shown_and_the_pairs(check_page: CheckPage) -> None:
    num = 50
    taken = np.array([0, *range(num - 1)])
    outcome = ZeroShotOutcome(
        keys=[str(number) for number in range(num)],
        rows=np.arange(num),
        classnames=[f"{NASTY} {number}" for number in range(num)],
        labels=np.arange(num),
        ranks=(taken != np.arange(num)).astype(np.int64),
        top=taken[:, None],
        probabilities=np.full((num, 1), 0.5, np.float32),
        calibrated=np.full(num, 0.25, np.float32),
    )
    text = check_page(join(labelled_details(outcome))).text
    assert "The 10 classes between them" in text
    assert f"{NASTY} 1 {NASTY} 0 1 100.0" in text
    nothing = replace(outcome, ranks=np.zeros(num, np.int64), top=np.arange(num)[:, None])
    assert "every image was classified rightly" in check_page(join(labelled_details(nothing))).text


def test_pairs_are_those_of_the_whole_table() -> None:
    """Against the table itself, sorted."""
    outcome = _random(num=400, classes=7)
    counts = confusion(outcome)
    pairs = [(int(counts[a, b]), str(a), str(b), int(counts[a].sum())) for a in range(7) for b in range(7) if a != b]
    wanted = sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])
    found = most_confused(outcome, 10)
    assert [(one.images, one.right, one.taken, one.of) for one in found] == wanted[:10]


def test_many_classes_need_no_table_of_all_pairs() -> None:
    """Of 5,000 classes it would take 200 MB."""
    outcome = _random(num=1000, classes=5000)
    tracemalloc.start()
    try:
        assert len(most_confused(outcome, 20)) == 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000


def _random(*, num: int, classes: int) -> ZeroShotOutcome:
    """Half of the images are right as another class than the first of theirs."""
    draw = np.random.default_rng(0)
    return ZeroShotOutcome(
        keys=[str(image) for image in range(num)],
        rows=np.arange(num),
        classnames=[str(name) for name in range(classes)],
        labels=draw.integers(0, classes, num),
        ranks=draw.integers(0, 2, num),
        top=draw.integers(0, classes, (num, 1)),
        probabilities=np.full((num, 1), 0.5, np.float32),
        calibrated=np.full(num, 0.25, np.float32),
    )


def test_confidence_is_drawn_as_it_came_and_as_it_was_learned(colors: ZeroShotOutcome) -> None:
    page = join(labelled_details(colors))
    assert "as the model gives it" in page and "temperature learned on the other half" in page
    unknown = replace(colors, calibrated=np.full(6, np.nan, np.float32))
    assert "as the model gives it" in join(labelled_details(unknown))


@pytest.mark.parametrize("num", [0, 1])
def test_no_image_and_one_class_are_no_trouble(num: int, check_page: CheckPage) -> None:
    outcome = ZeroShotOutcome(
        keys=["a"][:num],
        rows=np.arange(num),
        classnames=["only"],
        labels=np.zeros(num, np.int64),
        ranks=np.zeros(num, np.int64),
        top=np.zeros((num, 1), np.int64),
        probabilities=np.ones((num, 1), np.float32),
        calibrated=np.ones(num, np.float32),
    )
    assert ("only 100.0 1 of 1" in check_page(join(labelled_details(outcome))).text) == bool(num)
