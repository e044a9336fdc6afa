"""What queries become: directions by hand, and what is no query."""

import numpy as np
import pytest

from littune.apps.search.query import Query, vectors
from littune.base.errors import InputError
from tests.apps.search.conftest import Drawn
from tests.evaluation.conftest import ColorReader, paint


def unit(row: np.ndarray) -> np.ndarray:
    return row / np.linalg.norm(row)


def test_words_alone_are_the_text_tower_s(reader: Drawn) -> None:
    expected = reader.encode_text(["a", "b"])
    assert np.array_equal(vectors(reader, ["a", Query(text="b")]), expected)
    assert vectors(reader, []).shape == (0, reader.dim)


def test_a_picture_alone_and_both(model: ColorReader, tmp_path) -> None:
    paint(tmp_path / "red.png", "red")
    picture, words = model.encode_image(tmp_path / "red.png")[0], model.encode_text("green")[0]
    alone, both, mostly = vectors(
        model,
        [
            Query(image=tmp_path / "red.png"),
            Query(text="green", image=tmp_path / "red.png"),
            Query(text="green", image=tmp_path / "red.png", weight=0.9),
        ],
    )
    np.testing.assert_allclose(alone, picture, atol=1e-6)
    np.testing.assert_allclose(both, unit(picture + words), atol=1e-6)
    np.testing.assert_allclose(mostly, unit(0.9 * picture + 0.1 * words), atol=1e-6)


def test_what_is_not_wanted_is_subtracted(reader: Drawn) -> None:
    a, b, c = reader.encode_text(["a", "b", "c"])
    one, two, plain = vectors(reader, [Query(text="a", without=("b",)), Query(text="a", without=("b", "c")), "a"])
    np.testing.assert_allclose(one, unit(a - b / 2), atol=1e-6)
    np.testing.assert_allclose(two, unit(a - unit(b + c) / 2), atol=1e-6)
    assert one.dtype == np.float32 and np.array_equal(plain, a)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": " "}, "query is blank"),
        ({}, "query is blank"),
        ({"text": "a", "weight": 1.5}, "weight = 1.5"),
        ({"text": "a", "weight": float("nan")}, "weight = nan"),
        ({"text": "a", "without": ("b", " ")}, "what is not wanted is blank"),
    ],
)
def test_no_queries(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Query(**settings)


def test_pictures_that_cancel_the_words_leave_nothing(model: ColorReader, monkeypatch: pytest.MonkeyPatch) -> None:
    row = model.encode_text("red")
    monkeypatch.setattr(type(model), "encode_image", lambda self, images: -row)
    with pytest.raises(InputError, match="the picture and the words cancel"):
        vectors(model, [Query(text="red", image=b"")])
