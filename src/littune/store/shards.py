"""A shard's two files: embeddings as .npy, keys and texts as .parquet, one row for one row.

The layout and names are those that clip-retrieval, embedding-reader and autofaiss read.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Float16

from littune.base.errors import InputError, first_line
from littune.base.files import sha256_of_file, write_atomic
from littune.store.manifest import Manifest, Shard

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("caption", pa.string()),
        pa.field("captions", pa.list_(pa.string()), nullable=False),
        pa.field("label", pa.int64()),
        pa.field("image_sha256", pa.string()),
        pa.field("fields", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What a store says of a row beside its embedding."""

    key: str
    source: str
    texts: tuple[str, ...] = ()
    label: int | None = None
    image_sha256: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


def img_emb_path(folder: Path, shard: int, view: int = 0) -> Path:
    """Where a shard's embeddings lie: the plain ones, or those of a view, which count from 1."""
    return folder / (f"img_emb_v{view}" if view else "img_emb") / f"img_emb_{shard:04d}.npy"


def metadata_path(folder: Path, shard: int) -> Path:
    """Where a shard's keys and texts lie."""
    return folder / "metadata" / f"metadata_{shard:04d}.parquet"


def write_shard(
    folder: Path, number: int, embeddings: Float16[np.ndarray, "views n dim"], rows: Sequence[Row]
) -> Shard:
    """Write a shard's files, each complete or absent, over what a killed process may have left there.

    Args:
        folder: the store.
        number: what names the files.
        embeddings: the plain ones, then those of each view.
        rows: their rows, at least one.

    Raises:
        LittuneError: the disk is full or the folder cannot be written.
    """
    paths = [img_emb_path(folder, number, view) for view in range(len(embeddings))]
    for path, some in zip(paths, embeddings, strict=True):
        write_atomic(path, partial(np.save, arr=some, allow_pickle=False))
    metadata = metadata_path(folder, number)
    write_atomic(metadata, lambda file: pq.write_table(_to_table(rows), file))
    plain, *views = map(sha256_of_file, paths)
    return Shard(
        number=number,
        rows=len(rows),
        part=rows[0].source,
        img_emb_sha256=plain,
        metadata_sha256=sha256_of_file(metadata),
        views_sha256=tuple(views),
    )


def delete_unlisted(folder: Path, manifest: Manifest) -> None:
    """Delete what a killed process left: shards that the manifest does not list, and files written aside."""
    listed = {shard.number for shard in manifest.shards}
    leftovers = [*folder.glob(".manifest.json.*.tmp")]
    for inner in (folder / "metadata", *folder.glob("img_emb*")):
        leftovers += inner.glob(".*.tmp")
        shards = [*inner.glob("img_emb_*.npy"), *inner.glob("metadata_*.parquet")]
        leftovers += [file for file in shards if number_of(file) >= 0 and number_of(file) not in listed]
    for file in leftovers:
        file.unlink()


def check_shard(img_emb: Path, metadata: Path) -> tuple[int, int]:
    """The rows and width of a shard, from the headers of its files alone.

    Raises:
        InputError: a file is missing or damaged, or the two do not have one row for one row.
    """
    rows, dim = map_embeddings(img_emb).shape
    try:
        named = pq.read_metadata(metadata).num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{metadata} is missing or damaged ({first_line(error)}); restore it or embed anew") from error
    if named != rows:
        raise InputError(f"{metadata} has {named} rows and {img_emb.name} has {rows}; restore them or embed anew")
    return rows, dim


def check_manifest(folder: Path, manifest: Manifest) -> None:
    """Check by headers alone that the shards which the manifest lists are there.

    Raises:
        InputError: a file is missing, damaged, or not of the rows and width that the manifest says.
    """
    for shard in manifest.shards:
        img_emb = img_emb_path(folder, shard.number)
        rows, dim = check_shard(img_emb, metadata_path(folder, shard.number))
        if (rows, dim) != (shard.rows, manifest.dim):
            raise InputError(
                f"{img_emb} has {rows} rows of {dim} and the manifest lists {shard.rows} of {manifest.dim}; "
                "restore it or embed anew"
            )
        for view in range(1, manifest.num_views + 1):
            _check_view(img_emb_path(folder, shard.number, view), img_emb)


def _check_view(view: Path, plain: Path) -> None:
    """Views are many, and as large as the plain embeddings: their headers are left unread."""
    if not view.is_file() or view.stat().st_size != plain.stat().st_size:
        raise InputError(f"{view} is missing or damaged; restore it or embed anew")


def map_embeddings(path: Path) -> Float[np.ndarray, "n dim"]:
    """The embeddings in a file, by memory map.

    Raises:
        InputError: it is missing, damaged, or holds something else.
    """
    try:
        embeddings: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is missing or damaged ({first_line(error)}); restore it or embed anew") from error
    if embeddings.ndim != 2 or not embeddings.shape[1] or not np.issubdtype(embeddings.dtype, np.floating):
        shape = " × ".join(map(str, embeddings.shape))
        raise InputError(f"{path} holds {shape} of {embeddings.dtype}, not rows of floating-point embeddings")
    return embeddings


def to_float16(embeddings: Float[np.ndarray, "n dim"], name_of: Callable[[int], str]) -> Float16[np.ndarray, "n dim"]:
    """The embeddings in the store's precision; ``name_of`` names a row for the message.

    Raises:
        InputError: a value is not a number or is beyond float16's largest, 65504.
    """
    with np.errstate(over="ignore"):
        halves = embeddings.astype(np.float16, copy=False)
    finite = np.isfinite(halves).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        worst = float(np.abs(embeddings[row]).max())
        raise InputError(
            f"the embedding of {name_of(row)} does not fit float16 (its largest magnitude is {worst:g}, the limit "
            "65504); choose a tower or a pooling that ends in a norm, or float32 where lower precision overflowed"
        )
    return halves


def _to_table(rows: Sequence[Row]) -> pa.Table:
    return pa.Table.from_pydict(
        {
            "key": [row.key for row in rows],
            "source": [row.source for row in rows],
            "caption": [row.texts[0] if row.texts else None for row in rows],
            "captions": [row.texts for row in rows],
            "label": [row.label for row in rows],
            "image_sha256": [row.image_sha256 for row in rows],
            "fields": [json.dumps(_remaining(row), ensure_ascii=False) for row in rows],
        },
        schema=SCHEMA,
    )


def _remaining(row: Row) -> dict[str, object]:
    """The row's fields, less those that the columns ``caption`` and ``captions`` give back as they were."""
    own = {"caption": row.texts[:1], "captions": row.texts}
    return {name: value for name, value in row.fields.items() if name not in own or _as_tuple(value) != own[name]}


def _as_tuple(value: object) -> tuple[object, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def number_of(file: Path) -> int:
    """The number that a shard's file name ends in; -1 where it does not."""
    digits = file.stem.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else -1
