"""Examples on the page: pictures with their texts, or, without a picture, its key."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from littune.evaluation.report.gallery import examples_section
from littune.evaluation.results import Result, RetrievalOutcome, ZeroShotOutcome
from littune.store.embed import embed
from tests.evaluation.conftest import make_tower
from tests.evaluation.report.conftest import NASTY, CheckPage

LABELLED = Result(data="d", task="zero_shot", num_images=6, metrics={})
PAIRS = Result(data="p", task="retrieval", num_images=3, num_texts=4, metrics={})


def test_without_an_outcome_there_are_no_examples() -> None:
    assert examples_section(LABELLED) == ""


def test_without_pictures_the_keys_are_shown(colors: ZeroShotOutcome, check_page: CheckPage) -> None:
    text = check_page(examples_section(replace(LABELLED, outcome=colors))).text
    assert "Without pictures" in text
    assert "Surest and wrong" in text and "b0 blue ✗ place 4 green 95.0 red 1.0" in text
    assert "Surest and right" in text and "r0 red red 90.0 green 10.0" in text


def test_texts_are_shown_with_their_image_and_what_was_found(squares: RetrievalOutcome, check_page: CheckPage) -> None:
    text = check_page(examples_section(replace(PAIRS, outcome=squares))).text
    assert "c a blue square ✗ place 3 found first: a b" in text
    assert "b a green square ✗ place 3 found first: a red square something red a green square" in text
    assert "Texts whose image stands first" in text


def test_pictures_say_what_they_show(
    pair_folder: Path, tmp_path: Path, squares: RetrievalOutcome, check_page: CheckPage
) -> None:
    """The rows of the outcome are the store's 0, 1 and 3."""
    store = embed(make_tower(), pair_folder, tmp_path / "store")
    captions = [NASTY, "something red", "a green square", "x" * 200]
    page = examples_section(replace(PAIRS, outcome=replace(squares, captions=captions), store=store))
    outline = check_page(page)
    pictures = [attributes for name, attributes in outline.tags if name == "img"]
    assert {picture["alt"] for picture in pictures} == {NASTY, "a green square", f"{'x' * 159}…"}
    assert "Without pictures" not in outline.text


def test_where_all_is_right_nothing_wrong_is_shown(colors: ZeroShotOutcome, check_page: CheckPage) -> None:
    right = replace(colors, ranks=np.zeros(6, np.int64))
    text = check_page(examples_section(replace(LABELLED, outcome=right))).text
    assert "Surest and wrong" not in text and "✗" not in text


def test_a_guess_is_right_where_its_rank_says_so(colors: ZeroShotOutcome, check_page: CheckPage) -> None:
    """The first red image is right as green, too, and was taken for it."""
    both = replace(colors, top=np.array([[1, 2], *colors.top[1:].tolist()]))
    outline = check_page(examples_section(replace(LABELLED, outcome=both)))
    right = [tag for tag, attributes in outline.tags if tag == "li" and attributes.get("class") == "right"]
    # The first guess of three images, and the second for r2.
    assert len(right) == 3 + 1
    assert "several right classes" in outline.text
    assert "several right classes" not in examples_section(replace(LABELLED, outcome=colors))
