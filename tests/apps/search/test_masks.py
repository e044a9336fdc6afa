"""Masks are what the slow, obvious way gives: each row's fields looked at one by one."""

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.apps.search import masks
from littune.apps.search.filters import conditions_of
from littune.apps.search.masks import allowed_rows, matches
from littune.base.errors import InputError
from littune.pairs.texts import look_up
from littune.store.store import EmbeddingStore
from tests.apps.search.conftest import make_foreign

FILTERS = [
    {"key": ["k3", "k50", "k99"]},
    {"source": "part 1"},
    {"caption": "picture 7"},
    {"captions": "number 7"},
    {"label": 2},
    {"label": {"min": 2}},
    {"width": "7", "good": "false"},
    {"width": {"min": 3, "max": 5}, "source": ["part 0", "part 2"]},
    {"ratio": 2.5},
    {"tags": "t4"},
    {"extra.de": ["Bild 1", "Bild 2"]},
    {"width": 3, "key": "k4"},
]


@pytest.mark.parametrize("where", FILTERS, ids=str)
@pytest.mark.parametrize("foreign", [False, True])
def test_it_is_what_the_fields_say(
    drawn_store: EmbeddingStore, where: dict[str, object], foreign: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masks, "_ROWS", 13)
    own = zip(drawn_store.keys(), drawn_store.sources(), _labels(drawn_store), drawn_store.fields(), strict=True)
    rows = [{"key": key, "source": source, "label": label} | fields for key, source, label, fields in own]
    store = make_foreign(drawn_store) if foreign else drawn_store
    conditions = conditions_of(where)
    expected = [all(one.holds(look_up(row, one.column)) for one in conditions) for row in rows]
    assert any(expected) or where == FILTERS[-1]
    assert allowed_rows(store, conditions).tolist() == expected


def _labels(store: EmbeddingStore) -> list[object]:
    tables = [pq.read_table(metadata) for _, metadata in store.files]
    return pa.concat_tables(tables)["label"].to_pylist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3]),
        pa.array([1.5, 2.0, None]),
        pa.array(["3", None, ""]),
        pa.array([True, False, None]),
        pa.array([["3"], [], None]),
        pa.array([[3.0, 1.0], [None], [2.0]], pa.large_list(pa.float32())),
        pa.array([[[3]], [[1], [3]], None]),
        pa.array(["a", "3", None]).dictionary_encode(),
        pa.array([datetime.date(2020, 1, 3), None, None]),
        pa.array([{"a": 3}, None, {"a": 1}]),
        pa.array([None, None, None]),
        pa.array([["3"], ["x"], ["3"], None])[1:],
    ],
)
def test_every_kind_of_column(column: pa.Array) -> None:
    for wanted in (3, "true", 2, {"min": 2}, "2020-01-03"):
        [condition] = conditions_of({"x": wanted})
        assert matches(column, condition).tolist() == [condition.holds(value) for value in column.to_pylist()]


def test_foreign_columns(tmp_path: Path) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for shard, columns in enumerate([{"width": [1, 2]}, {"other": [1, 2], "info": [{"w": 1}, None]}]):
        np.save(tmp_path / f"img_emb/img_emb_{shard}.npy", np.ones((2, 4), np.float16))
        pq.write_table(pa.table(columns), tmp_path / f"metadata/metadata_{shard}.parquet")
    store = EmbeddingStore.open(tmp_path, allow_foreign=True)
    assert allowed_rows(store, conditions_of({"width": 2})).tolist() == [False, True, False, False]
    assert allowed_rows(store, conditions_of({"info.w": 1})).tolist() == [False, False, True, False]
    with pytest.raises(InputError, match="no column 'height' to filter on; it has width"):
        allowed_rows(store, conditions_of({"height": 1}))


def test_a_column_that_is_not_there(drawn_store: EmbeddingStore) -> None:
    there = "caption, captions, extra, good, image_sha256, key, label, ratio, source, tags, width"
    for name in ("height", "fields", "extra.fr", "width.x"):
        with pytest.raises(InputError, match=f"no column '{name}' to filter on; it has {there}$"):
            allowed_rows(drawn_store, conditions_of({"width": 1, name: 1}))
