"""What the parquet files beside the embeddings say of each row: littune's own columns, or anybody's."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from littune.base.errors import InputError, first_line
from littune.pairs.texts import DEFAULT_FIELDS, texts_from
from littune.store.shards import SCHEMA

_KEYS = ("key", "image_path")

TEXT_COLUMNS = DEFAULT_FIELDS
"""The columns that hold the texts which were chosen when a store was made."""


def read_rows(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    """The rows of a file, each with those of ``columns`` (None: all) that it has.

    Raises:
        InputError: the file cannot be read.
    """
    with _readable(file):
        opened = pq.ParquetFile(file)
        present = [name for name in opened.schema_arrow.names if columns is None or name in columns]
        if not present:
            yield from ({} for _ in range(opened.metadata.num_rows))
            return
        for batch in opened.iter_batches(columns=present):
            yield from batch.to_pylist()


def read_keys(files: Sequence[Path]) -> Iterator[str]:
    """What names each row: its ``key``, else its ``image_path``, else its number."""
    rows = (row for file in files for row in read_rows(file, _KEYS))
    for number, row in enumerate(rows):
        yield str(next((row[name] for name in _KEYS if row.get(name) is not None), number))


def columns_of(names: Sequence[str]) -> list[str]:
    """The columns that ``fields_of`` needs to know the fields of these names, which may be dotted paths."""
    return [*SCHEMA.names, *names, *(name.partition(".")[0] for name in names)]


def texts_of(row: Mapping[str, Any], *, foreign: bool) -> tuple[str, ...]:
    """The texts of a row: littune's list as it was written; of others the list ``captions``, else ``caption``."""
    if not foreign:
        return tuple(row["captions"])
    return next(filter(None, (texts_from(row, (name,)) for name in TEXT_COLUMNS)), ())


def fields_of(row: Mapping[str, Any], *, foreign: bool) -> dict[str, object]:
    """A row's fields: what the source said, completed by the texts' columns; of a foreign row, all its columns."""
    texts = texts_of(row, foreign=foreign)
    captions = {"caption": texts[0], "captions": list(texts)} if texts else {}
    # A store that has lost its manifest is foreign, but its columns are littune's still.
    own_columns = row.keys() == set(SCHEMA.names)
    remaining: dict[str, object] = json.loads(row["fields"]) if own_columns else dict(row)
    return captions | remaining


def schema_of(files: Sequence[Path]) -> pa.Schema:
    """The columns of all files, each of a type that holds what every file has in it.

    Raises:
        InputError: a file cannot be read, or two have a column of types that do not go together.
    """
    schemas = [_schema(file) for file in files]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive") if schemas else SCHEMA
    except pa.ArrowException as error:
        raise InputError(f"{files[0].parent}: its files have other columns than one another ({error})") from error


def read_tables(files: Sequence[Path], size: int) -> Iterator[pa.Table]:
    """The rows of all files in their order under ``schema_of`` them, ``size`` at a time.

    Raises:
        InputError: a file cannot be read.
    """
    held = schema_of(files).empty_table()
    for file in files:
        for batch in _batches(file, size):
            held = pa.concat_tables([held, pa.Table.from_batches([batch])], promote_options="permissive")
            while held.num_rows >= size:
                yield held.slice(0, size).combine_chunks()
                held = held.slice(size)
    if held.num_rows:
        yield held.combine_chunks()


def _schema(file: Path) -> pa.Schema:
    with _readable(file):
        return pq.read_schema(file).remove_metadata()


def _batches(file: Path, size: int) -> Iterator[pa.RecordBatch]:
    with _readable(file):
        for batch in pq.ParquetFile(file).iter_batches(size):
            yield batch.replace_schema_metadata(None)


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is damaged ({first_line(error)}); restore it or embed anew") from error
