"""Stores in the formats of others: one array with a table, parquet, Lance. Rows are streamed, whatever their number.

What is written is what the store holds: the image tower's raw output, neither centred nor of unit length. Parquet and
Lance get float32, which all their readers know and which holds every float16 exactly.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from littune.apps.export.base import Exported
from littune.base.errors import InputError, MissingExtraError
from littune.base.files import write_json
from littune.store.store import EmbeddingStore

# So many rows are in memory at once, and make a row group of a table.
_BLOCK = 4096
_BLOCKS_PER_FILE = 64


def to_npy(store: EmbeddingStore, out: Path) -> Exported:
    """``embeddings.npy``, float16 rows × dim, and ``metadata.parquet``, a row for each.

    Raises:
        InputError: the store is empty, unfinished or damaged.
    """
    _check(store)
    with open(out / "embeddings.npy", "wb") as file:
        shape = (store.num_rows, store.dim)
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": shape})
        for block in store.iter_embeddings(_BLOCK):
            file.write(block.astype("<f2", copy=False).tobytes())
    with pq.ParquetWriter(out / "metadata.parquet", store.metadata_schema(), compression="zstd") as writer:
        for rows in store.iter_metadata(_BLOCK):
            writer.write_table(rows)
    return _exported(store, out, _LOAD_NPY)


def to_parquet(store: EmbeddingStore, out: Path) -> Exported:
    """``rows/0000.parquet`` and on: the metadata's columns and ``embedding``, a list of ``dim`` float32.

    Raises:
        InputError: the store is empty, unfinished or damaged, or has a column of that name.
    """
    _check(store)
    schema = _with_embeddings(store, "embedding")
    tables = _tables(store, schema)
    (out / "rows").mkdir()
    for number, first in enumerate(tables):
        with pq.ParquetWriter(out / "rows" / f"{number:04d}.parquet", schema, compression="zstd") as writer:
            for table in itertools.chain([first], itertools.islice(tables, _BLOCKS_PER_FILE - 1)):
                writer.write_table(table)
    return _exported(store, out, _LOAD_PARQUET)


def to_lance(store: EmbeddingStore, out: Path) -> Exported:
    """A Lance data set, ``rows.lance``: the metadata's columns and ``vector``, ``dim`` float32, which Lance searches.

    Raises:
        InputError: the store is empty, unfinished or damaged, or has a column of that name.
        MissingExtraError: pylance is not installed.
    """
    _check(store)
    try:
        import lance
    except ImportError as error:
        raise MissingExtraError("a Lance data set", "lance") from error
    schema = _with_embeddings(store, "vector")
    batches = (batch for table in _tables(store, schema) for batch in table.to_batches())
    lance.write_dataset(pa.RecordBatchReader.from_batches(schema, batches), out / "rows.lance")
    return _exported(store, out, _LOAD_LANCE)


def _check(store: EmbeddingStore) -> None:
    if not store.complete:
        raise InputError(f"{store.path} is unfinished ({store.num_rows} rows so far); embed it to the end first")
    if not store.num_rows:
        raise InputError(f"{store.path} has no rows to export")


def _with_embeddings(store: EmbeddingStore, column: str) -> pa.Schema:
    """The columns of the metadata, and one for the embeddings."""
    schema = store.metadata_schema()
    if column in schema.names:
        raise InputError(f"{store.path} has a column {column!r} already, where the embeddings would go: export to npy")
    return schema.append(pa.field(column, pa.list_(pa.float32(), store.dim), nullable=False))


def _tables(store: EmbeddingStore, schema: pa.Schema) -> Iterator[pa.Table]:
    """All rows with their embeddings, a block at a time."""
    start = 0
    for rows in store.iter_metadata(_BLOCK):
        numbers = store.take(np.arange(start, start + len(rows))).astype(np.float32).reshape(-1)
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(numbers), store.dim)
        yield pa.Table.from_arrays([*rows.columns, embeddings], schema=schema)
        start += len(rows)


def _exported(store: EmbeddingStore, out: Path, code: str) -> Exported:
    """Say beside the rows what they are, and to the user what they are not."""
    settings = store.manifest.settings if store.manifest else None
    write_json(
        out / "store.json",
        {
            "rows": store.num_rows,
            "dim": store.dim,
            "kind": store.kind,
            "image_tower": settings.tower if settings else None,
            "identity": settings.identity.to_dict() if settings else None,
            "pairs": settings.pairs if settings else None,
            "classnames": store.classnames,
            "templates": store.templates,
        },
    )
    notes = ["the embeddings are the image tower's own: centre them and scale them to unit length to compare them"]
    if store.num_views:
        notes.append(f"the {store.num_views} augmented views of each image are left out")
    if settings is None:
        notes.append("nothing tells which image tower they are of")
    return Exported(how_to_load=code, notes=tuple(notes))


_LOAD_NPY = """\
import numpy as np
import pyarrow.parquet as pq

embeddings = np.load("embeddings.npy", mmap_mode="r")  # rows x dim, float16
rows = pq.read_table("metadata.parquet")  # row i says what embeddings[i] is of
print(embeddings.shape, rows.num_rows, rows.column_names)
"""

_LOAD_PARQUET = """\
import pyarrow.parquet as pq

rows = pq.read_table("rows")  # with pandas: pd.read_parquet("rows"); in duckdb: FROM 'rows/*.parquet'
numbers = rows["embedding"].combine_chunks().flatten().to_numpy()
embeddings = numbers.reshape(rows.num_rows, -1)  # rows x dim, float32
print(embeddings.shape, rows.column_names)
"""

_LOAD_LANCE = """\
import lance

rows = lance.dataset("rows.lance")
query = rows.take([0]).column("vector")[0].values
nearest = rows.to_table(nearest={"column": "vector", "q": query, "k": 5, "metric": "cosine"})
print(rows.count_rows(), nearest.column("_distance").to_pylist(), rows.schema.names)
"""
