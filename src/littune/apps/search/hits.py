"""Hits, and what a store says of the rows that were found: only their part of the metadata is read."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from littune.apps.search.readable import readable
from littune.store.metadata import TEXT_COLUMNS, texts_of
from littune.store.store import EmbeddingStore

_NAMES = ("key", "image_path")
_CACHED = 256 << 20
"""So many bytes of metadata are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One image found: its cosine with the query, and what the store says of it."""

    score: float
    key: str
    source: str
    caption: str

    def to_dict(self) -> dict[str, object]:
        """The hit as JSON values."""
        return asdict(self)


def about_row(row: Mapping[str, Any], number: int, file: Path, *, foreign: bool) -> dict[str, str]:
    """Key, source and first caption of a row as they are in its metadata, whose ``file`` names a foreign source.

    Args:
        row: its columns.
        number: its place in the store, which names it where nothing else does.
        file: where it lies.
        foreign: whether something else than littune wrote it.
    """
    return {
        "key": str(next((row[name] for name in _NAMES if row.get(name) is not None), number)),
        "source": file.name if foreign else row["source"],
        "caption": next(iter(texts_of(row, foreign=foreign)), ""),
    }


class Captions:
    """Key, source and first caption of any rows of a store; the row groups they lie in are kept while they are few."""

    def __init__(self, store: EmbeddingStore) -> None:
        self._store = store
        self._files = [metadata for _, metadata in store.files]
        self._ends = np.cumsum([pq.read_metadata(file).num_rows for file in self._files], dtype=np.int64)
        self._groups: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._groups_of: dict[int, Int64[np.ndarray, " groups"]] = {}
        self._bytes = 0

    def hits(self, rows: Sequence[int], scores: Sequence[float]) -> list[Hit]:
        """A hit for each of these rows.

        Raises:
            InputError: the metadata cannot be read.
        """
        return [Hit(score=score, **self._about(int(row))) for row, score in zip(rows, scores, strict=True)]

    def _about(self, number: int) -> dict[str, str]:
        shard = int(np.searchsorted(self._ends, number, side="right"))
        row = self._row(shard, number - (int(self._ends[shard - 1]) if shard else 0))
        return about_row(row, number, self._files[shard], foreign=self._store.manifest is None)

    def _row(self, shard: int, offset: int) -> dict[str, Any]:
        with readable(self._files[shard]):
            ends = self._ends_of_groups(shard)
            group = int(np.searchsorted(ends, offset, side="right"))
            table = self._group(shard, group)
        offset -= int(ends[group - 1]) if group else 0
        return {name: table.column(name)[offset].as_py() for name in table.column_names}

    def _ends_of_groups(self, shard: int) -> Int64[np.ndarray, " groups"]:
        if shard not in self._groups_of:
            about = pq.read_metadata(self._files[shard])
            sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
            self._groups_of[shard] = np.cumsum(sizes, dtype=np.int64)
        return self._groups_of[shard]

    def _group(self, shard: int, group: int) -> pa.Table:
        if (shard, group) in self._groups:
            self._groups.move_to_end((shard, group))
            return self._groups[shard, group]
        with pq.ParquetFile(self._files[shard]) as file:
            wanted = (*_NAMES, "source", *TEXT_COLUMNS)
            table = file.read_row_group(group, [name for name in file.schema_arrow.names if name in wanted])
        self._groups[shard, group] = table
        self._bytes += table.nbytes
        while self._bytes > _CACHED and len(self._groups) > 1:
            self._bytes -= self._groups.popitem(last=False)[1].nbytes
        return table
