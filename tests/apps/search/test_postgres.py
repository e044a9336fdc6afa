"""The same searches against a real PostgreSQL as against the store that filled it; nothing a user writes is SQL."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from littune.apps.search import Hit, Index, Query
from littune.apps.search.filling import fill_table
from littune.apps.search.postgres import check_name, is_address
from littune.base.errors import InputError, LittuneError, MismatchError, MissingExtraError
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from littune.towers.image.tower import Identity
from tests.apps.search.conftest import DIM, Drawn, drawn, drawn_rows, make_foreign, write_store
from tests.apps.search.postgres_server import address as address
from tests.apps.search.test_masks import FILTERS

psycopg = pytest.importorskip("psycopg", reason="the extra pgvector is not installed")
CLASSES = ("cat", "dog", "cow", "hen")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    return write_store(tmp_path_factory.mktemp("pg") / "store", drawn(100), classnames=CLASSES)


@pytest.fixture(scope="module")
def table(address: str, store: EmbeddingStore) -> str:
    filled = fill_table(Drawn(), store, address, table="hundred")
    assert filled.to_text() == "the table hundred has 100 rows: 100 added, 0 changed, 0 removed"
    return "hundred"


def same(found: list[Hit], expected: list[Hit]) -> bool:
    return [(hit.key, hit.source, hit.caption) for hit in found] == [
        (hit.key, hit.source, hit.caption) for hit in expected
    ] and np.allclose([hit.score for hit in found], [hit.score for hit in expected], atol=1e-6)


@pytest.mark.parametrize("where", [{}, *FILTERS, {"label": "dog"}, {"label": ["cat", 3]}], ids=str)
def test_it_finds_what_the_store_finds(
    address: str, table: str, store: EmbeddingStore, reader: Drawn, where: dict[str, object]
) -> None:
    there, here = Index(reader, index=address, table=table), Index(reader, store)
    assert len(there) == len(here) == 100
    queries = ["one", Query(text="two", without=("three",))]
    for k in (3, 200):
        for found, expected in zip(
            there.search_many(queries, k=k, where=where), here.search_many(queries, k=k, where=where), strict=True
        ):
            assert same(found, expected)


def test_nothing_a_user_writes_is_sql(address: str, table: str, reader: Drawn) -> None:
    evil = "'; DROP TABLE hundred; --"
    index = Index(reader, index=address, table=table)
    assert index.search(evil, where={"key": evil}) == []
    assert index.search(evil, where={"extra.'; DROP TABLE hundred; --": ["%s", "{}", '"']}) == []
    with pytest.raises(InputError, match="has no column \"'; DROP"):
        index.search("a", where={evil: 1})
    for name in (evil, "Hundred", "1a", "", "littune_indexes", "a" * 56, "a.b", "hundred "):
        with pytest.raises(InputError, match="the table's name .* is not usable"):
            check_name(name)
    assert len(index) == 100


def test_rows_come_change_and_go(address: str, reader: Drawn, tmp_path: Path) -> None:
    embeddings = drawn(60)
    first = write_store(tmp_path / "first", embeddings[:40])
    assert fill_table(reader, first, address, table="moving").added == 40
    again = fill_table(reader, first, address, table="moving")
    assert (again.added, again.changed, again.removed) == (0, 0, 0)
    searched = Index(reader, index=address, table="moving")
    # Ten rows gone, twenty new, one embedding another.
    embeddings[20] = -embeddings[20]
    second = write_store(tmp_path / "second", embeddings[10:], drawn_rows(60)[10:])
    filled = fill_table(reader, second, address, table="moving")
    assert (filled.rows, filled.added, filled.changed, filled.removed) == (50, 20, 1, 10)
    assert len(searched) == 50
    assert same(searched.search("a", k=60), Index(reader, second).search("a", k=60))


def test_a_refused_filling_leaves_the_table(address: str, reader: Drawn, tmp_path: Path) -> None:
    first = write_store(tmp_path / "first", drawn(20))
    fill_table(reader, first, address, table="kept")
    rows = drawn_rows(20)
    with pytest.raises(InputError, match=r"has two rows of one source and key \(.*k3"):
        fill_table(reader, with_a_key_twice(tmp_path, rows), address, table="kept")
    assert len(Index(reader, index=address, table="kept")) == 20


def with_a_key_twice(folder: Path, rows: list[Row]) -> EmbeddingStore:
    store = write_store(folder / "twice", drawn(20), rows)
    _, metadata = store.files[0]
    table = pq.read_table(metadata)
    keys = ["k3", *table["key"].to_pylist()[1:]]
    pq.write_table(table.set_column(0, table.schema.field("key"), [keys]), metadata)
    return EmbeddingStore.open(store.path)


def test_other_runs_towers_and_tables(address: str, table: str, store: EmbeddingStore) -> None:
    torch.manual_seed(0)
    with pytest.raises(MismatchError, match="the table hundred is the index of another run, with another centre"):
        Index(Drawn(center=0.2), index=address, table=table)
    with pytest.raises(MismatchError, match="another image head"):
        fill_table(Drawn(image_head=nn.Linear(DIM, DIM)), store, address, table=table)
    other = Drawn()
    other.reference = type(other.reference)(spec="x", pooling="cls", identity=_other_identity(other))
    with pytest.raises(MismatchError, match="the table hundred is not of the image tower x"):
        Index(other, index=address, table=table)
    with pytest.raises(InputError, match="no table nowhere of littune's; fill it with: littune index"):
        Index(Drawn(), index=address, table="nowhere")
    with psycopg.connect(address) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS somebody_s (a int)")
    with pytest.raises(InputError, match="has a table somebody_s that is not littune's"):
        fill_table(Drawn(), store, address, table="somebody_s")
    with pytest.raises(InputError, match="name it, or a store, not both"):
        Index(Drawn(), store, index=address)


def _other_identity(model: Drawn) -> Identity:
    assert model.reference.identity is not None
    return replace(model.reference.identity, weights="other")


def test_a_retrained_text_tower_searches_the_same_table(
    address: str, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = Drawn()
    monkeypatch.setattr(retrained, "encode_text", lambda texts: Drawn().encode_text([text * 2 for text in texts]))
    assert len(Index(retrained, index=address, table=table).search("query")) == 5


def test_a_foreign_store(address: str, reader: Drawn, tmp_path: Path) -> None:
    foreign = make_foreign(write_store(tmp_path / "store", drawn(30)))
    fill_table(reader, foreign, address, table="foreign_one", allow_foreign=True)
    with pytest.raises(MismatchError, match="--allow-foreign"):
        Index(reader, index=address, table="foreign_one")
    found = Index(reader, index=address, table="foreign_one", allow_foreign=True).search("a")
    assert same(found, Index(reader, foreign, allow_foreign=True).search("a"))


def test_wide_rows_are_halves_and_wider_ones_refused(address: str, tmp_path: Path) -> None:
    wide = write_store(tmp_path / "wide", drawn(12, 2001))
    fill_table(Drawn(2001), wide, address, table="wide")
    found = Index(Drawn(2001), index=address, table="wide").search("a", k=12)
    expected = Index(Drawn(2001), wide).search("a", k=12)
    assert {hit.key for hit in found} == {hit.key for hit in expected}
    assert found[0].score == pytest.approx(expected[0].score, abs=1e-3)
    with pytest.raises(InputError, match="4001 dimensions, and pgvector's graph takes at most 4000"):
        fill_table(Drawn(4001), wide, address, table="wider")


def test_the_graph_is_used(address: str, tmp_path: Path, reader: Drawn) -> None:
    fill_table(reader, write_store(tmp_path / "store", drawn(3000), shard=3000), address, table="graph")
    index = Index(reader, index=address, table="graph")
    statement, parameters = index._home._statement(reader.encode_text("a")[0], 5, [])
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("ANALYZE graph")
        plan = "\n".join(row[0] for row in connection.execute("EXPLAIN " + statement.as_string(), parameters))
    assert "Index Scan using graph_hnsw" in plan


def test_a_broken_connection_is_made_anew(address: str, table: str, reader: Drawn) -> None:
    index = Index(reader, index=address, table=table)
    pid = index._home._connection.info.backend_pid
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(LittuneError, match="the database does not answer any more"):
        index.search("a")
    assert len(index.search("a")) == 5


def test_no_answer_and_no_extra(reader: Drawn, store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("postgresql://user:secret@127.0.0.1:9/x", "postgresql://%zz"):
        with pytest.raises(InputError, match="the database does not answer") as caught:
            Index(reader, index=wrong)
        assert "secret" not in str(caught.value)
    assert is_address("postgres://x") and not is_address(Path("postgres")) and not is_address(None)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"littune\[pgvector\]"):
        Index(reader, index="postgresql://x")
