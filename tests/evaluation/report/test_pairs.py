"""The recall curve of a set of pairs."""

from dataclasses import replace

import numpy as np
import pytest

from littune.evaluation.report.markup import join
from littune.evaluation.report.pairs import pairs_details, recall_curve
from littune.evaluation.results import RetrievalOutcome
from tests.evaluation.report.conftest import CheckPage


def test_a_curve_rises_to_one() -> None:
    assert recall_curve(np.array([0, 0, 1, 2]), 3) == [0.5, 0.75, 1.0]


def test_a_curve_ends_at_100() -> None:
    assert len(recall_curve(np.array([0]), 5000)) == 100


def test_both_directions_are_drawn_and_listed(squares: RetrievalOutcome, check_page: CheckPage) -> None:
    text = check_page(join(pairs_details(squares))).text
    assert "k = 1 k = 2 text → image 50.0 75.0 image → text 33.3 66.7" in text


@pytest.mark.parametrize("kept", [0, 1])
def test_one_image_and_none_are_no_trouble(kept: int, squares: RetrievalOutcome, check_page: CheckPage) -> None:
    few = replace(
        squares,
        keys=squares.keys[:kept],
        rows=squares.rows[:kept],
        captions=squares.captions[:kept],
        owners=squares.owners[:kept],
        ranks={name: ranks[:kept] for name, ranks in squares.ranks.items()},
        top_images=squares.top_images[:kept, :kept],
        top_texts=squares.top_texts[:kept, :kept],
    )
    assert ("text → image 100.0" in check_page(join(pairs_details(few))).text) == bool(kept)
