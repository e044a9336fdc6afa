"""Search finds what the words say, best first, and refuses what it cannot search."""

from pathlib import Path

import numpy as np
import pytest

from littune.apps.search import Index, Query, store_home
from littune.base.errors import InputError, MismatchError
from littune.store.shards import Row
from littune.store.store import EmbeddingStore
from tests.evaluation.conftest import ColorReader, MakeStore, make_tower, paint

ROWS = [Row(key=key, source="by hand", texts=(f"a {key} square",)) for key in ("red", "green", "blue", "red again")]
COLORS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)


@pytest.fixture
def store(make_store: MakeStore) -> EmbeddingStore:
    return make_store(ROWS, COLORS)


def test_the_nearest_come_first_and_equal_ones_in_the_store_s_order(model: ColorReader, store: EmbeddingStore) -> None:
    hits = Index(model, store).search("a red thing", k=3)
    assert [hit.key for hit in hits[:2]] == ["red", "red again"]
    assert hits[0].score == pytest.approx(1, abs=1e-2)
    assert hits[0].score == hits[1].score > hits[2].score
    assert hits[0].to_dict()["caption"] == "a red square"


def test_a_store_is_searched_by_its_folder(model: ColorReader, store: EmbeddingStore) -> None:
    for folder in (store.path, str(store.path)):
        assert Index(model, folder).search("green", k=1) == Index(model, store).search("green", k=1)


def test_several_queries_and_more_than_there_is(model: ColorReader, store: EmbeddingStore) -> None:
    index = Index(model, store)
    green, blue = index.search_many(["green", "blue"], k=99)
    assert (green[0].key, blue[0].key, len(green)) == ("green", "blue", len(index))


def test_what_cannot_be_searched(model: ColorReader, store: EmbeddingStore, make_store: MakeStore) -> None:
    index = Index(model, store)
    with pytest.raises(InputError, match="query is blank"):
        index.search("  ")
    with pytest.raises(InputError, match="k = 0"):
        index.search("red", k=0)
    with pytest.raises(MismatchError, match="other weights"):
        Index(model, make_store(ROWS, COLORS, tower=make_tower(factor=2.0), name="other"))


def test_queries_of_every_kind_and_filters(model: ColorReader, store: EmbeddingStore, tmp_path: Path) -> None:
    index = Index(model, store)
    paint(tmp_path / "green.png", "green")
    asked = [Query(image=tmp_path / "green.png"), "red", Query(text="red green", without=("red",))]
    best = [hits[0].key for hits in index.search_many(asked, k=1)]
    assert best == ["green", "red", "green"]
    assert [hit.key for hit in index.search("red", where={"key": ["blue", "red again"]})] == ["red again", "blue"]
    assert index.search("red", where={"key": "nothing"}) == []
    assert index.search_many([], k=1) == []
    with pytest.raises(InputError, match="no column 'size'"):
        index.search("red", where={"size": 3})


def test_a_filter_is_looked_up_once(model: ColorReader, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(model, store)
    first = index.search("red", where={"key": "red"})
    for number in range(store_home._FILTERS - 1):
        index.search("red", where={"key": str(number)})
    with monkeypatch.context() as patch:
        patch.setattr(store_home, "allowed_rows", None)
        assert index.search("red", where={"key": "red"}) == first
    for number in range(store_home._FILTERS):
        index.search("red", where={"key": f"new {number}"})
    assert len(index._home._allowed) == store_home._FILTERS
