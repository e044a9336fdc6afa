"""Files of rows: which columns they have, and their rows one by one, unusable ones in their place.

CSV and JSONL are read by line, so memory holds one; parquet in small batches within a row group, so memory
holds two pages of it (how many rows that is was decided by whoever wrote the file: at most 1024 by default).
"""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from littune.base.errors import InputError
from littune.pairs.rows import RowError
from littune.pairs.texts import MAX_TEXT_BYTES, is_unicode, parse_object

Row = dict[str, object] | RowError
"""Column → value, or why the row cannot be read."""

_PARQUET_BATCH = 16


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a table says of itself.

    Attributes:
        columns: the names of its columns.
        binary: those that hold bytes, which are encoded pictures and not paths.
        num_rows: how many rows it has, where it says so.
    """

    columns: tuple[str, ...]
    binary: frozenset[str] = frozenset()
    num_rows: int | None = None


@dataclass(frozen=True, kw_only=True)
class Format:
    """How a kind of file is read.

    Attributes:
        header: path → columns; raises ``InputError`` where the file is not what its name says.
        rows: path, name of the image column → (place such as "line 7", row), in order.
    """

    header: Callable[[Path], Header]
    rows: Callable[[Path, str], Iterator[tuple[str, Row]]]


def _csv_header(path: Path, *, delimiter: str) -> Header:
    columns = next((row for _, row in _csv_lines(path, delimiter) if row), None)
    if columns is None:
        raise InputError(f"{path} is empty; its first line must name the columns")
    if isinstance(columns, RowError):
        raise InputError(f"{path}: its first line, the names of the columns, {columns}")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path} names a column twice: {', '.join(columns)}")
    return Header(columns=tuple(columns))


def _csv_rows(path: Path, _image: str, *, delimiter: str) -> Iterator[tuple[str, Row]]:
    columns: list[str] | None = None
    for place, row in _csv_lines(path, delimiter):
        if isinstance(row, RowError):
            yield place, row
        elif columns is None:
            columns = row
        elif len(row) != len(columns):
            yield place, RowError(f"it has {len(row)} fields for {len(columns)} columns: texts with commas need quotes")
        else:
            yield place, dict(zip(columns, row, strict=True))


def _csv_lines(path: Path, delimiter: str) -> Iterator[tuple[str, list[str] | RowError]]:
    """The rows that are not blank, the first with the names of the columns among them."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"line {reader.line_num}", RowError(f"it is malformed ({error}): check its quotes")
                continue
            if not is_unicode(row):
                yield f"line {reader.line_num}", RowError("it is not UTF-8; save the table as UTF-8")
            elif row:
                yield f"line {reader.line_num}", row


def _jsonl_header(path: Path) -> Header:
    rows = (row for _, row in islice(_jsonl_rows(path, ""), 100) if not isinstance(row, RowError))
    first = next(rows, None)
    if first is None:
        raise InputError(f"{path} holds no row that can be read; each line must be a JSON object")
    return Header(columns=tuple(first))


def _jsonl_rows(path: Path, _image: str) -> Iterator[tuple[str, Row]]:
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(MAX_TEXT_BYTES):
            number += 1
            if len(line) == MAX_TEXT_BYTES and not line.endswith(b"\n"):
                while (rest := file.readline(MAX_TEXT_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield f"line {number}", RowError(f"it is over the limit of {MAX_TEXT_BYTES >> 20} MB")
            elif line.strip():
                yield f"line {number}", _object_or_error(line)


def _object_or_error(line: bytes) -> Row:
    try:
        return parse_object(line, "it")
    except RowError as error:
        return error


def _parquet_header(path: Path) -> Header:
    with _open_parquet(path) as file:
        schema = file.schema_arrow
        binary = frozenset(field.name for field in schema if _holds_bytes(field.type))
        return Header(columns=tuple(schema.names), binary=binary, num_rows=file.metadata.num_rows)


def _parquet_rows(path: Path, image: str) -> Iterator[tuple[str, Row]]:
    with _open_parquet(path) as file:
        fields = file.schema_arrow
        wanted = [field.name for field in fields if field.name == image or not _holds_bytes(field.type)]
        number = 0
        for group in range(file.num_row_groups):
            end = number + file.metadata.row_group(group).num_rows
            try:
                batches = file.iter_batches(_PARQUET_BATCH, row_groups=[group], columns=wanted, use_threads=False)
                for row in (row for batch in batches for row in _batch_rows(batch)):
                    number += 1
                    yield f"row {number}", row
            except (pa.ArrowException, OSError) as error:
                why = str(error).splitlines()[0]
                yield (
                    f"row {number + 1}",
                    RowError(f"the rows from it to {end} cannot be read ({why}): copy the file anew"),
                )
            number = end


def _batch_rows(batch: Any) -> Iterator[Row]:
    """The rows of a record batch; strings that are no UTF-8 (arrow does not check) cost their row alone."""
    try:
        rows: list[dict[str, object]] = batch.to_pylist()
        yield from rows
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield batch.slice(index, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield RowError("it is not UTF-8; write the table anew with UTF-8 texts")


def _open_parquet(path: Path) -> Any:
    try:
        # Without these two settings a whole row group, often a gigabyte of pictures, is read ahead.
        return pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no parquet file, or is truncated ({str(error).splitlines()[0]})") from error


def _holds_bytes(kind: Any) -> bool:
    """Whether a column is of bytes, or, as Hugging Face writes pictures, of structs with a field ``bytes``."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


FORMATS = {
    "csv": Format(header=partial(_csv_header, delimiter=","), rows=partial(_csv_rows, delimiter=",")),
    "tsv": Format(header=partial(_csv_header, delimiter="\t"), rows=partial(_csv_rows, delimiter="\t")),
    "jsonl": Format(header=_jsonl_header, rows=_jsonl_rows),
    "ndjson": Format(header=_jsonl_header, rows=_jsonl_rows),
    "parquet": Format(header=_parquet_header, rows=_parquet_rows),
}
"""The suffix of a file, lower-case, → how it is read."""
