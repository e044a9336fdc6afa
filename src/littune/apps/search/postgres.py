"""PostgreSQL with pgvector as the home of an index that several programs share.

A table holds the projected rows, their keys and captions, and all fields as JSON; ``littune_indexes`` says of each
table what it holds. Names of tables are checked and quoted, and all else that a user gives is bound, never spliced.
"""

import re
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32

from littune.apps.search.filters import Condition, Where, conditions_of
from littune.apps.search.hits import Hit
from littune.apps.search.image_side import ImageSide
from littune.base.errors import InputError, LittuneError, MissingExtraError, first_line
from littune.model.lit import LiT
from littune.towers.image.tower import Identity

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.sql import Composed

TABLE = "littune"
REGISTER = "littune_indexes"

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,54}")
_SECONDS = 10


def is_address(index: object) -> bool:
    """Whether this is the address of a database, and no path."""
    return isinstance(index, str) and index.startswith(("postgresql://", "postgres://"))


def connect(address: str) -> "Connection[Any]":
    """A connection to a database; every statement is a transaction of its own unless it is in one.

    Raises:
        InputError: it does not answer, or the address is no address.
        MissingExtraError: psycopg or pgvector is not installed.
    """
    try:
        import pgvector  # noqa: F401
        import psycopg
    except ImportError as error:
        raise MissingExtraError("a database", "pgvector") from error
    try:
        return psycopg.connect(address, autocommit=True, connect_timeout=_SECONDS)
    except psycopg.Error as error:
        # An address may hold a password, and is not repeated.
        raise InputError(f"the database does not answer ({first_line(error)}); look at its address") from error


def check_name(table: str) -> None:
    """Check that a table may be called so.

    Raises:
        InputError: it may not.
    """
    if not _NAME.fullmatch(table) or table == REGISTER:
        raise InputError(
            f"the table's name {table!r} is not usable: at most 55 lower-case letters, digits and _, no digit first"
        )


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line what the database did not like.

    Raises:
        LittuneError: the block raised one of psycopg's errors.
    """
    import psycopg

    try:
        yield
    except psycopg.OperationalError as error:
        raise LittuneError(f"the database does not answer any more ({first_line(error)})") from error
    except psycopg.Error as error:
        raise LittuneError(f"the database refused: {first_line(error)}") from error


def read_about(connection: "Connection[Any]", table: str) -> dict[str, Any] | None:
    """What the database says of a table of littune's; None where there is none."""
    if connection.execute("SELECT to_regclass(%s)", [REGISTER]).fetchone() == (None,):
        return None
    found = connection.execute("SELECT about FROM littune_indexes WHERE name = %s", [table]).fetchone()
    return None if found is None else found[0]


def check_about(about: dict[str, Any], model: LiT, table: str, *, allow_foreign: bool) -> None:
    """Check that a table's rows are those that a model would make.

    Raises:
        MismatchError: they are not.
    """
    identity = None if about["identity"] is None else Identity.from_dict(about["identity"])
    model.reference.check(identity, f"the table {table}", allow_foreign=allow_foreign)
    ImageSide.from_dict(about["image_side"], f"the table {table}").check(model, f"the table {table}")


def open_table(model: LiT, address: str, table: str, *, allow_foreign: bool = False) -> "TableHome":
    """The table that ``fill_table`` filled, to be searched.

    Raises:
        InputError: the database does not answer, or has no such table of littune's.
        MismatchError: the table is of another image tower, or of another run.
        MissingExtraError: psycopg or pgvector is not installed.
    """
    check_name(table)
    with connect(address) as connection, explained():
        about = read_about(connection, table)
    if about is None:
        raise InputError(f"the database has no table {table} of littune's; fill it with: littune index STORE --to …")
    check_about(about, model, table, allow_foreign=allow_foreign)
    return TableHome(address, table, about)


class TableHome:
    """A table as the home of an index.

    Searches take turns on one connection, which is made anew where it broke, and closed as the home goes.
    """

    def __init__(self, address: str, table: str, about: dict[str, Any]) -> None:
        self._address = address
        self._table = table
        self._about = about
        self._turn = Lock()
        self._connection = self._connect()

    def __len__(self) -> int:
        from psycopg import sql

        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(self._table))
        with explained(), self._turn:
            found = self._connected().execute(query).fetchone()
        assert found is not None
        return int(found[0])

    def search(self, queries: Float32[np.ndarray, "n dim"], k: int, where: Where) -> list[list[Hit]]:
        """The ``k`` images nearest to each of these unit rows under a filter, nearly; equal scores by source and key.

        The graph of neighbours is gone through until there are enough; where it ends before that, all rows are.

        Raises:
            InputError: there is no such column.
            LittuneError: the database does not answer any more.
        """
        conditions = conditions_of(where, self._about["classnames"])
        self._check_columns(conditions)
        with explained(), self._turn:
            return [self._nearest(query, k, conditions) for query in queries]

    def _check_columns(self, conditions: Sequence[Condition]) -> None:
        there = self._about["columns"]
        for condition in conditions:
            if condition.column not in there and condition.column.partition(".")[0] not in there:
                what = f"the table {self._table} has no column {condition.column!r} to filter on"
                raise InputError(f"{what}; it has {', '.join(there)}")

    def _nearest(self, query: Float32[np.ndarray, " dim"], k: int, conditions: Sequence[Condition]) -> list[Hit]:
        statement, parameters = self._statement(query, k, conditions)
        connection = self._connected()
        with connection.transaction():
            _set(connection, "hnsw.ef_search", str(min(1000, max(100, 2 * k))))
            _set(connection, "hnsw.iterative_scan", "strict_order")
            found = connection.execute(statement, parameters).fetchall()
            if len(found) < k:
                _set(connection, "enable_indexscan", "off")
                found = connection.execute(statement, parameters).fetchall()
        hits = [Hit(source=row[0], key=row[1], caption=row[2], score=row[3]) for row in found]
        return sorted(hits, key=lambda hit: (-hit.score, hit.source, hit.key))

    def _statement(
        self, query: Float32[np.ndarray, " dim"], k: int, conditions: Sequence[Condition]
    ) -> "tuple[Composed, list[object]]":
        from psycopg import sql

        parts = [_condition(condition) for condition in conditions]
        where = sql.SQL(" WHERE " + " AND ".join(text for text, _ in parts) if parts else "")
        vector = "[" + ",".join(map(repr, query.tolist())) + "]"
        distance = sql.SQL("embedding <#> %s::{}").format(sql.SQL(self._about["type"]))
        statement = sql.SQL("SELECT source, key, caption, -({}) FROM {}{} ORDER BY {} LIMIT %s").format(
            distance, sql.Identifier(self._table), where, distance
        )
        return statement, [vector, *(value for _, values in parts for value in values), vector, k]

    def _connected(self) -> "Connection[Any]":
        if self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> "Connection[Any]":
        connection = connect(self._address)
        weakref.finalize(self, connection.close)
        return connection


def _set(connection: "Connection[Any]", name: str, value: str) -> None:
    """Set one of the server's settings until the transaction ends."""
    connection.execute("SELECT set_config(%s, %s, true)", [name, value])


def _condition(condition: Condition) -> tuple[str, list[object]]:
    """``Condition.holds`` in SQL, and what is bound in it: of a list, one value is enough."""
    values: list[object] = [condition.column, condition.column.split(".")]
    if condition.texts:
        holds = (
            "CASE jsonb_typeof(one) WHEN 'null' THEN false "
            "WHEN 'number' THEN trim_scale(one::numeric)::text = ANY(%s) ELSE one #>> '{}' = ANY(%s) END"
        )
        values += [list(condition.texts)] * 2
    else:
        holds = "CASE jsonb_typeof(one) WHEN 'number' THEN one::float8 BETWEEN %s AND %s ELSE false END"
        values += [condition.low, condition.high]
    found = "coalesce(fields -> %s::text, fields #> %s::text[])"
    return f"EXISTS (SELECT FROM jsonb_path_query({found}, 'lax $[*][*][*]') AS one WHERE {holds})", values
