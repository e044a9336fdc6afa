"""Which rows of a store a filter allows: only the columns that it asks for are read, and one bit a row is kept."""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Bool

from littune.apps.search.filters import Condition
from littune.apps.search.readable import readable
from littune.base.errors import InputError
from littune.pairs.texts import look_up
from littune.store.metadata import fields_of, read_rows
from littune.store.shards import SCHEMA
from littune.store.store import EmbeddingStore

_ROWS = 65_536
_SHOWN = 1000
"""The fields of so many rows are named where one is asked for that does not exist."""


def allowed_rows(store: EmbeddingStore, conditions: Sequence[Condition]) -> Bool[np.ndarray, " rows"]:
    """Whether all conditions hold of each row of a store.

    Raises:
        InputError: no row has a value in such a column or field, or the metadata cannot be read.
    """
    seen: set[str] = set()
    masks = [np.zeros(0, np.bool_)]
    for _, metadata in store.files:
        for batch in _batches(metadata, [condition.column for condition in conditions]):
            mask = np.ones(len(batch), np.bool_)
            for condition in conditions:
                values = _values(batch, condition.column)
                if not isinstance(values, list) or any(value is not None for value in values):
                    seen.add(condition.column)
                mask &= matches(values, condition)
            masks.append(mask)
    for condition in conditions:
        if condition.column not in seen and store.num_rows:
            raise InputError(
                f"{store.path} has no column {condition.column!r} to filter on; it has {', '.join(_columns(store))}"
            )
    return np.concatenate(masks)


def matches(values: Any, condition: Condition) -> Bool[np.ndarray, " n"]:
    """Whether a condition holds of each value of a list or an Arrow array, whose distinct values are looked at once."""
    if isinstance(values, list):
        return np.array([condition.holds(value) for value in values], np.bool_)
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        parents = pc.list_parent_indices(values).to_numpy()
        mask = np.zeros(len(values), np.bool_)
        mask[parents[matches(values.flatten(), condition)]] = True
        return mask
    if pa.types.is_nested(values.type):
        return matches(values.to_pylist(), condition)
    encoded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    holds = [condition.holds(value) for value in encoded.dictionary.to_pylist()]
    # What is null is told to be the last of the distinct values, of which nothing holds.
    numbers = encoded.indices.cast(pa.int64()).fill_null(len(holds)).to_numpy(zero_copy_only=False)
    found: np.ndarray = np.array([*holds, False], np.bool_)[numbers]
    return found


def _batches(metadata: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a file with the columns that these names lie in."""
    wanted = {*names, *(name.partition(".")[0] for name in names), "fields"}
    with readable(metadata), pq.ParquetFile(metadata) as file:
        there = file.schema_arrow.names
        columns = [name for name in there if name in wanted]
        if _is_own(there) and all(name in there for name in names):
            columns.remove("fields")
        yield from file.iter_batches(_ROWS, columns=columns or there[:1])


def _is_own(columns: Sequence[str]) -> bool:
    return set(columns) == set(SCHEMA.names)


def _values(batch: pa.RecordBatch, name: str) -> Any:
    """What the rows of a batch have under a name, as an array or a list: a column, a field, or nested in one."""
    if name in batch.schema.names and name != "fields":
        return batch.column(name)
    top = name.partition(".")[0]
    if top in batch.schema.names and top != name:
        return [look_up({top: value}, name) for value in batch.column(top).to_pylist()]
    if "fields" in batch.schema.names and pa.types.is_string(batch.schema.field("fields").type):
        return [look_up(json.loads(text), name) for text in batch.column("fields").to_pylist()]
    return [None] * len(batch)


def _columns(store: EmbeddingStore) -> list[str]:
    """The names that a filter may ask for, as far as the first rows tell."""
    names: set[str] = set()
    for _, metadata in store.files[:1]:
        for row in islice(read_rows(metadata, None), _SHOWN):
            own = _is_own(list(row))
            names |= (row.keys() - {"fields"} if own else set()) | fields_of(row, foreign=store.manifest is None).keys()
    return sorted(names)
