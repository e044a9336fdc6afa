"""Blocks are all rows, once, and no larger than they may be."""

import pytest

from littune.evaluation.metrics.blocks import blocks


@pytest.mark.parametrize(
    ("num_rows", "width", "numbers", "expected"),
    [
        (7, 10, 30, [(0, 3), (3, 6), (6, 7)]),
        (6, 10, 39, [(0, 3), (3, 6)]),
        (2, 10, 3, [(0, 1), (1, 2)]),  # a row is taken whole
        (5, 0, 3, [(0, 3), (3, 5)]),
        (0, 10, 30, []),
    ],
)
def test_by_hand(num_rows: int, width: int, numbers: int, expected: list[tuple[int, int]]) -> None:
    assert [(block.start, block.stop) for block in blocks(num_rows, width, numbers)] == expected
