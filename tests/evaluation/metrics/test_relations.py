"""Lists of numbers, equal rows, and right answers, against plain Python."""

import numpy as np
import pytest

from littune.evaluation.metrics.relations import Lists, distinct_rows, relations_of, starts_of


def split(lengths: np.ndarray, numbers: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(numbers, np.cumsum(lengths)[:-1])]


def test_lists_are_those_of_their_rows() -> None:
    lists = Lists.from_pairs(np.array([2, 0, 2, 3]), np.array([7, 8, 9, 6]), 5)
    assert split(*lists.take(np.array([2, 1, 0, 2, 4, 3]))) == [[7, 9], [], [8], [7, 9], [], [6]]


def test_lists_start_one_after_another() -> None:
    assert starts_of(np.array([3, 0, 2])).tolist() == [0, 3, 3]


def test_equal_rows_share_a_number_in_order_of_appearance() -> None:
    rows = np.array([[1, 2], [0, 1], [1, 2], [np.nan, 0], [np.nan, 0], [-0.0, 1]], dtype=np.float32)
    distinct = distinct_rows(rows)
    # Equal to the last bit: a negative zero is another number.
    assert distinct.places.tolist() == [0, 1, 0, 2, 2, 3]
    assert distinct.first.tolist() == [0, 1, 3, 5]


@pytest.mark.parametrize("seed", range(3))
def test_right_is_whoever_shares_a_group(seed: int) -> None:
    rng = np.random.default_rng(seed)
    owners = rng.permutation(np.repeat(np.arange(10), rng.integers(1, 5, 10)))
    groups = rng.integers(0, 8, len(owners))
    relations = relations_of(owners, groups, 10)
    of_image = [{int(groups[t]) for t in range(len(owners)) if owners[t] == image} for image in range(10)]
    for texts in (np.arange(len(owners)), np.array([3, 0, 3])):
        right = split(*relations.text_to_image.of(texts))
        assert [sorted(images) for images in right] == [
            [image for image in range(10) if int(groups[t]) in of_image[image]] for t in texts
        ]
    right = split(*relations.image_to_text.of(np.arange(10)))
    assert [sorted(texts) for texts in right] == [
        [t for t in range(len(owners)) if int(groups[t]) in of_image[image]] for image in range(10)
    ]
