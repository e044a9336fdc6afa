"""What is said of a hit is what the store says of its row, and no more of the metadata is read than that takes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.apps.search import hits as hits_module
from littune.apps.search.hits import Captions
from littune.base.errors import InputError
from littune.store.store import EmbeddingStore
from tests.apps.search.conftest import make_foreign


def about(store: EmbeddingStore) -> list[tuple[str, str, str]]:
    captions = [texts[0] if texts else "" for texts in store.texts()]
    return list(zip(store.keys(), store.sources(), captions, strict=True))


def found(store: EmbeddingStore, rows: list[int]) -> list[tuple[str, str, str]]:
    return [(hit.key, hit.source, hit.caption) for hit in Captions(store).hits(rows, [0.5] * len(rows))]


@pytest.mark.parametrize("foreign", [False, True])
def test_it_is_what_the_store_says(drawn_store: EmbeddingStore, foreign: bool) -> None:
    store = make_foreign(drawn_store) if foreign else drawn_store
    expected = about(store)
    rows = [99, 0, 39, 40, 5, 40]
    assert found(store, rows) == [expected[row] for row in rows]
    assert found(store, list(range(100))) == expected
    assert Captions(store).hits([3], [0.25])[0].to_dict()["score"] == 0.25


@pytest.mark.parametrize(
    "columns",
    [
        {"image_path": ["a", None, "c"], "caption": ["x", "y", None]},
        {"captions": [["x"], [], ["z"]]},
        {"width": [1, 2, 3]},
    ],
)
def test_a_foreign_store_in_row_groups(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    for shard in (0, 1):
        np.save(tmp_path / f"img_emb/img_emb_{shard}.npy", np.ones((3, 4), np.float16))
        pq.write_table(pa.table(columns), tmp_path / f"metadata/metadata_{shard}.parquet", row_group_size=2)
    store = EmbeddingStore.open(tmp_path, allow_foreign=True)
    assert found(store, [5, 0, 1, 2, 3, 4]) == [about(store)[row] for row in (5, 0, 1, 2, 3, 4)]


def test_row_groups_are_kept_while_they_are_few(drawn_store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = Captions(drawn_store)
    captions.hits([0, 99, 1], [1.0] * 3)
    assert len(captions._groups) == 2
    assert captions._bytes == sum(table.nbytes for table in captions._groups.values())
    monkeypatch.setattr(hits_module, "_CACHED", captions._bytes * 3 // 2)
    captions.hits([0, 50], [1.0] * 2)
    assert list(captions._groups) == [(0, 0), (1, 0)]


def test_damaged_metadata_is_named(drawn_store: EmbeddingStore) -> None:
    captions = Captions(drawn_store)
    file = drawn_store.files[1][1]
    file.write_bytes(b"cut short")
    with pytest.raises(InputError, match=f"{file} is damaged"):
        captions.hits([50], [1.0])
