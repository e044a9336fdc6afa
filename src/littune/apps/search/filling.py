"""A table filled from a store: rows that came are added, those that changed replaced, those gone removed.

It is all one transaction, so whoever searches meanwhile sees the table as it was before or as it is after. A row is
known by its source and key; a mark tells whether its embedding or what is said of it changed.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float16

from littune.apps.search.hits import about_row
from littune.apps.search.image_side import ImageSide
from littune.apps.search.postgres import check_about, check_name, connect, explained, read_about
from littune.base.errors import InputError
from littune.base.progress import track
from littune.evaluation.sets.stores import project_rows
from littune.model.lit import LiT
from littune.pairs.texts import as_json
from littune.store.metadata import fields_of, read_rows
from littune.store.store import EmbeddingStore

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

_BLOCK = 4096
_VECTOR, _HALFVEC = 2000, 4000
"""The most dimensions that pgvector's graph takes of its two types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What became of a table."""

    table: str
    rows: int
    added: int
    changed: int
    removed: int

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """A line for people."""
        return (
            f"the table {self.table} has {self.rows:,} rows: "
            f"{self.added:,} added, {self.changed:,} changed, {self.removed:,} removed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    number: int
    source: str
    key: str
    caption: str
    fields: str
    mark: bytes


@dataclass(slots=True, kw_only=True)
class _Counts:
    added: int = 0
    changed: int = 0
    removed: int = 0
    columns: set[str] = field(default_factory=set)


def fill_table(
    model: LiT, store: str | Path | EmbeddingStore, address: str, *, table: str, allow_foreign: bool = False
) -> Filled:
    """Make a table hold what a store holds, projected into a model's space, and see that it has its graph.

    Args:
        model: the model.
        store: embeddings of its image tower, or their folder.
        address: ``postgresql://…``.
        table: the table's name; it is made where it is not there.
        allow_foreign: admit a store made elsewhere, of which only the dimension can be checked.

    Raises:
        InputError: the store or the table's name cannot be used, the space has too many dimensions, or the database
            does not answer or has a table of that name which is not littune's.
        LittuneError: the database refuses.
        MismatchError: the store is of another image tower, or the table of another run.
        MissingExtraError: psycopg or pgvector is not installed.
    """
    check_name(table)
    if model.dim > _HALFVEC:
        raise InputError(f"the run's space has {model.dim} dimensions, and pgvector's graph takes at most {_HALFVEC}")
    if not isinstance(store, EmbeddingStore):
        store = EmbeddingStore.open(store, allow_foreign=allow_foreign)
    model.check_store(store, allow_foreign=allow_foreign)
    with connect(address) as connection, explained(), connection.transaction():
        kind = _prepare(connection, model, table, allow_foreign=allow_foreign)
        counts = _Counts()
        with track("indexing", total=store.num_rows, unit="rows") as advance:
            for rows in _blocks(store, counts):
                _take_in(connection, model, store, table, kind, rows, counts)
                advance(len(rows))
        counts.removed = connection.execute(
            _sql(
                "DELETE FROM {} t WHERE NOT EXISTS (SELECT FROM seen s WHERE s.source = t.source AND s.key = t.key)",
                table,
            )
        ).rowcount
        connection.execute(
            _sql(
                f"CREATE INDEX IF NOT EXISTS {{1}} ON {{0}} USING hnsw (embedding {kind}_ip_ops)",
                table,
                f"{table}_hnsw",
            )
        )
        _register(connection, model, store, table, kind, sorted(counts.columns))
    return Filled(table=table, rows=store.num_rows, added=counts.added, changed=counts.changed, removed=counts.removed)


def _sql(text: str, *names: str) -> "Composed":
    from psycopg import sql

    return sql.SQL(text).format(*map(sql.Identifier, names))


def _prepare(connection: "Connection[Any]", model: LiT, table: str, *, allow_foreign: bool) -> str:
    """See that the tables are there and may be filled, and keep others from filling them; the vectors' type."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"littune {table}"])
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("CREATE TABLE IF NOT EXISTS littune_indexes (name text PRIMARY KEY, about jsonb NOT NULL)")
    about = read_about(connection, table)
    kind = "vector" if model.dim <= _VECTOR else "halfvec"
    if about is not None:
        check_about(about, model, table, allow_foreign=allow_foreign)
    elif connection.execute("SELECT to_regclass(%s)", [table]).fetchone() != (None,):
        raise InputError(f"the database has a table {table} that is not littune's; choose another --table")
    connection.execute(
        _sql(
            "CREATE TABLE IF NOT EXISTS {} (source text, key text, caption text NOT NULL, fields jsonb NOT NULL, "
            f"mark bytea NOT NULL, embedding {kind}({model.dim}) NOT NULL, PRIMARY KEY (source, key))",
            table,
        )
    )
    connection.execute("CREATE TEMP TABLE seen (source text, key text, PRIMARY KEY (source, key)) ON COMMIT DROP")
    connection.execute("CREATE TEMP TABLE block (number bigint, source text, key text, mark bytea) ON COMMIT DROP")
    connection.execute(_sql("CREATE TEMP TABLE fresh (LIKE {}) ON COMMIT DROP", table))
    return kind


def _blocks(store: EmbeddingStore, counts: _Counts) -> Iterator[list[_Row]]:
    """The rows of a store with their marks, in blocks; the names of their fields are collected."""
    foreign = store.manifest is None
    embeddings = store.iter_embeddings(_BLOCK)
    number = 0
    for _, metadata in store.files:
        said = read_rows(metadata, None)
        while some := list(islice(said, _BLOCK)):
            block: list[_Row] = []
            for row, embedding in zip(some, next(embeddings), strict=True):
                about = about_row(row, number, metadata, foreign=foreign)
                fields = _fields(row, about, foreign=foreign)
                counts.columns.update(fields)
                block.append(_marked(number, about, fields, embedding))
                number += 1
            yield block


def _fields(row: dict[str, Any], about: dict[str, str], *, foreign: bool) -> dict[str, object]:
    own = {} if foreign else {name: row[name] for name in ("label", "image_sha256")}
    fields = {**own, **fields_of(row, foreign=foreign), "key": about["key"], "source": about["source"]}
    return {
        name: value for name, value in ((name, as_json(value)) for name, value in fields.items()) if value is not None
    }


def _marked(
    number: int, about: dict[str, str], fields: dict[str, object], embedding: Float16[np.ndarray, " dim"]
) -> _Row:
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True)
    mark = hashlib.sha256(embedding.tobytes() + text.encode() + about["caption"].encode()).digest()
    return _Row(number=number, fields=text, mark=mark, **about)


def _take_in(
    connection: "Connection[Any]",
    model: LiT,
    store: EmbeddingStore,
    table: str,
    kind: str,
    rows: Sequence[_Row],
    counts: _Counts,
) -> None:
    """Add those of a block that the table lacks, and replace those whose mark differs."""
    from psycopg.errors import UniqueViolation

    connection.execute("TRUNCATE block, fresh")
    with connection.cursor().copy("COPY block FROM STDIN") as copy:
        for row in rows:
            copy.write_row((row.number, row.source, row.key, row.mark))
    try:
        connection.execute("INSERT INTO seen SELECT source, key FROM block")
    except UniqueViolation as error:
        twice = error.diag.message_detail or ""
        raise InputError(f"{store.path} has two rows of one source and key ({twice}); a table takes one") from error
    wanted = connection.execute(
        _sql(
            "SELECT b.number, t.mark IS NULL FROM block b LEFT JOIN {} t USING (source, key) "
            "WHERE t.mark IS DISTINCT FROM b.mark ORDER BY b.number",
            table,
        )
    ).fetchall()
    if not wanted:
        return
    numbers = np.array([number for number, _ in wanted], np.int64)
    with connection.cursor().copy("COPY fresh FROM STDIN") as copy:
        for number, embedding in zip(numbers.tolist(), project_rows(model, store, numbers).tolist(), strict=True):
            row = rows[number - rows[0].number]
            vector = "[" + ",".join(map(repr, embedding)) + "]"
            copy.write_row((row.source, row.key, row.caption, row.fields, row.mark, vector))
    connection.execute(
        _sql(
            "INSERT INTO {} SELECT * FROM fresh ON CONFLICT (source, key) DO UPDATE SET caption = excluded.caption, "
            "fields = excluded.fields, mark = excluded.mark, embedding = excluded.embedding",
            table,
        )
    )
    num_new = sum(new for _, new in wanted)
    counts.added += num_new
    counts.changed += len(wanted) - num_new


def _register(
    connection: "Connection[Any]", model: LiT, store: EmbeddingStore, table: str, kind: str, columns: Sequence[str]
) -> None:
    about = {
        "identity": store.identity and store.identity.to_dict(),
        "image_side": ImageSide.of(model).to_dict(),
        "classnames": store.classnames and list(store.classnames),
        "columns": list(columns),
        "type": kind,
    }
    connection.execute(
        "INSERT INTO littune_indexes VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET about = excluded.about",
        [table, json.dumps(about)],
    )
