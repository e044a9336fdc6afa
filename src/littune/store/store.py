"""EmbeddingStore: embeddings on disk, with the keys and texts of their rows.

Reads littune's own folders and those that clip-retrieval and its kin write (no manifest, so only a width is
known of what made them). Opening reads headers alone; rows are read when they are asked for.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16, Int64

from littune.base.errors import InputError
from littune.base.files import sha256_of_file
from littune.pairs.patterns import is_pattern
from littune.pairs.texts import texts_from
from littune.store.manifest import FILENAME, Manifest, has_manifest
from littune.store.shards import (
    check_manifest,
    check_shard,
    img_emb_path,
    map_embeddings,
    metadata_path,
    number_of,
    to_float16,
)
from littune.towers.image.tower import Identity

_CAPTION_COLUMNS = ("caption", "captions")

_MAX_MAPS = 16_384
"""How many files are mapped at once; Linux allows a process 65,530 maps."""


class EmbeddingStore:
    """A folder of embeddings, open for reading; ``EmbeddingStore.open`` makes one.

    Attributes:
        path: the folder.
        manifest: what made it; None for a foreign store.
        files: the embeddings and the metadata of each shard.
        num_rows: the rows of all shards.
        dim: the width of a row.
    """

    def __init__(
        self,
        path: Path,
        manifest: Manifest | None,
        files: Sequence[tuple[Path, Path]],
        rows_of_shards: Sequence[int],
        dim: int,
    ) -> None:
        self.path = path
        self.manifest = manifest
        self.files = tuple(files)
        self.dim = dim
        self.num_rows = sum(rows_of_shards)
        self._ends = np.cumsum(rows_of_shards, dtype=np.int64)
        self._maps: dict[Path, np.ndarray] = {}

    @classmethod
    def open(cls, path: str | Path, *, allow_foreign: bool = False) -> "EmbeddingStore":
        """Open a store's folder.

        Args:
            path: the folder.
            allow_foreign: admit a folder in the same layout that littune did not write; of its rows only the width
                is known, not the tower.

        Raises:
            InputError: the folder is missing, is no store, is foreign and not admitted, or its files do not agree.
        """
        folder = Path(path)
        if has_manifest(folder):
            manifest = Manifest.read(folder)
            check_manifest(folder, manifest)
            shards = manifest.shards
            files = [(img_emb_path(folder, shard.number), metadata_path(folder, shard.number)) for shard in shards]
            return cls(folder, manifest, files, [shard.rows for shard in shards], manifest.dim)
        files = _foreign_files(folder)
        if not allow_foreign:
            raise InputError(
                f"{folder} holds embeddings that littune did not write, so nothing tells which tower made them; "
                "if you know that the tower is right, admit it with --allow-foreign (eval, search)"
            )
        shapes = [check_shard(*pair) for pair in files]
        if len({dim for _, dim in shapes}) > 1:
            raise InputError(f"{folder / 'img_emb'} holds embeddings of different widths; they are no one store")
        return cls(folder, None, files, [rows for rows, _ in shapes], shapes[0][1])

    def __repr__(self) -> str:
        of = f" of {self.manifest.settings.tower}" if self.manifest else ""
        unfinished = "" if self.complete else ", unfinished"
        return f"EmbeddingStore({str(self.path)!r}: {self.num_rows:,} rows × {self.dim}, {self.kind}{of}{unfinished})"

    @property
    def kind(self) -> str:
        """``images``, ``prototypes`` or ``foreign``."""
        return "foreign" if self.manifest is None else self.manifest.settings.kind

    @property
    def identity(self) -> Identity | None:
        """What must match to train or search with it; None for a foreign store."""
        return None if self.manifest is None else self.manifest.settings.identity

    @property
    def complete(self) -> bool:
        """Whether every row of the source has been dealt with."""
        return self.manifest is None or self.manifest.complete

    @property
    def classnames(self) -> tuple[str, ...] | None:
        """The class names of a labelled set, in the order of its labels."""
        return None if self.manifest is None else self.manifest.settings.classnames

    @property
    def templates(self) -> tuple[str, ...] | None:
        """The prompt templates that came with a labelled set."""
        return None if self.manifest is None else self.manifest.settings.templates

    @property
    def num_views(self) -> int:
        """How many augmented views of each row there are, the plain one not counted."""
        return 0 if self.manifest is None else self.manifest.num_views

    def embeddings(self) -> Float16[np.ndarray, "rows dim"]:
        """All rows in memory: the tower's raw pooled output, not of unit length.

        Raises:
            InputError: a foreign store's value is not a number or does not fit float16.
        """
        return np.concatenate([*self._shards(), np.empty((0, self.dim), np.float16)])

    def take(
        self, rows: Int64[np.ndarray, "n"], views: Int64[np.ndarray, "n"] | None = None
    ) -> Float16[np.ndarray, "n dim"]:
        """The embeddings of these rows, read by memory map: only what is asked for comes into memory.

        Args:
            rows: numbers of rows.
            views: which view of each row: 0 for the plain one, 1 to ``num_views`` for the others; None for all plain.

        Raises:
            InputError: there is no such view, or a foreign store's value is not a number or does not fit float16.
        """
        view_of = np.zeros_like(rows) if views is None else views
        if len(rows) and not 0 <= view_of.min() <= view_of.max() <= self.num_views:
            raise InputError(f"{self.path} has {self.num_views} views of each row; embed it anew with more")
        shard_of = np.searchsorted(self._ends, rows, side="right")
        file_of = view_of * len(self.files) + shard_of
        in_order = np.argsort(file_of, kind="stable")
        taken = np.empty((len(rows), self.dim), np.float16)
        for mine in np.split(in_order, 1 + np.flatnonzero(np.diff(file_of[in_order]))) if len(rows) else ():
            shard, view = int(shard_of[mine[0]]), int(view_of[mine[0]])
            mapped = self._mapped(shard, view)
            taken[mine] = self._as_float16(mapped[rows[mine] - self._ends[shard] + len(mapped)], shard)
        return taken

    def iter_embeddings(self, batch: int) -> Iterator[Float16[np.ndarray, "n dim"]]:
        """The rows in their order, at most ``batch`` at a time, with no more than one shard in memory."""
        for shard in self._shards():
            for start in range(0, len(shard), batch):
                yield shard[start : start + batch]

    def texts(self, names: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """The texts of each row.

        Args:
            names: fields that supply them, as in ``open_pairs``; none for those that were chosen when the store was
                made. A row that has none of the fields gives an empty tuple.
        """
        if not names:
            return [_captions(row) for row in self._rows(_CAPTION_COLUMNS)]
        return [texts_from(fields, names) for fields in self.fields()]

    def keys(self) -> list[str]:
        """What names each row within its source."""
        return [
            str(row["key"] if "key" in row else row.get("image_path", number))
            for number, row in enumerate(self._rows(("key", "image_path")))
        ]

    def sources(self) -> list[str]:
        """The part of the source that each row came from; for a foreign store, the metadata's file."""
        if self.manifest is not None:
            return [row["source"] for row in self._rows(("source",))]
        return [file.name for _, file in self.files for _ in range(pq.read_metadata(file).num_rows)]

    def labels(self) -> Int64[np.ndarray, "rows"] | None:
        """The index of each row's class in ``classnames``; None where the rows are pairs."""
        labels = [row.get("label") for row in self._rows(("label",))]
        if any(not isinstance(label, int) for label in labels):
            return None
        return np.array(labels, dtype=np.int64)

    def fields(self) -> list[dict[str, object]]:
        """All that the source said of each row beside the image, its texts included."""
        return [_fields(row) for row in self._rows(None)]

    def verify(self) -> None:
        """Read everything and compare it with the manifest's checksums.

        Raises:
            InputError: a file is not as it was written; for a foreign store, a value is not a number.
        """
        if self.manifest is None:
            for _ in self._shards():
                pass
            return
        for shard, (_, metadata) in zip(self.manifest.shards, self.files, strict=True):
            numbers = range(1 + self.num_views)
            files = [metadata, *(img_emb_path(self.path, shard.number, view) for view in numbers)]
            expected = [shard.metadata_sha256, shard.img_emb_sha256, *shard.views_sha256]
            for file, checksum in zip(files, expected, strict=True):
                if sha256_of_file(file) != checksum:
                    raise InputError(f"{file} is damaged (its checksum is wrong); restore it or embed anew")

    def _mapped(self, shard: int, view: int = 0) -> np.ndarray:
        """A shard's embeddings by memory map, which stays open."""
        file = self.files[shard][0]
        if view and self.manifest is not None:
            file = img_emb_path(self.path, self.manifest.shards[shard].number, view)
        if file not in self._maps:
            if len(self._maps) == _MAX_MAPS:
                self._maps.clear()
            self._maps[file] = map_embeddings(file)
        return self._maps[file]

    def _shards(self) -> Iterator[Float16[np.ndarray, "n dim"]]:
        for number in range(len(self.files)):
            yield self._as_float16(self._mapped(number), number)

    def _as_float16(self, embeddings: np.ndarray, shard: int) -> Float16[np.ndarray, "n dim"]:
        """Embeddings of a shard; those of littune's own stores were checked when they were written."""
        if self.manifest is not None:
            return embeddings
        return to_float16(embeddings, lambda row: f"a row of {self.files[shard][0]}")

    def _rows(self, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        """The rows of the metadata, each with those of ``columns`` (None: all) that its file has."""
        for _, file in self.files:
            yield from _read_rows(file, columns)


def is_store(path: str | Path) -> bool:
    """Whether a folder looks like a store, littune's own or a foreign one."""
    folder = Path(path)
    return has_manifest(folder) or any((folder / "img_emb").glob("*.npy"))


def _read_rows(file: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    try:
        opened = pq.ParquetFile(file)
        present = [name for name in opened.schema_arrow.names if columns is None or name in columns]
        if not present:
            yield from ({} for _ in range(opened.metadata.num_rows))
            return
        for batch in opened.iter_batches(columns=present):
            yield from batch.to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} is damaged ({error}); restore it or embed anew") from error


def _captions(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of a row of either layout: littune's list, else the single caption."""
    if row.get("captions") is not None:
        return tuple(row["captions"])
    return texts_from(row, ("caption",))


def _fields(row: Mapping[str, Any]) -> dict[str, object]:
    """A row's fields: what the source said, completed by the texts' columns."""
    texts = _captions(row)
    captions = {"caption": texts[0], "captions": list(texts)} if texts else {}
    remaining: dict[str, object] = json.loads(row["fields"]) if "fields" in row else dict(row)
    return captions | remaining


def _foreign_files(folder: Path) -> list[tuple[Path, Path]]:
    img_emb = sorted((folder / "img_emb").glob("*.npy"), key=number_of)
    metadata = sorted((folder / "metadata").glob("*.parquet"), key=number_of)
    if not img_emb:
        raise InputError(_no_store(folder))
    if [number_of(file) for file in img_emb] != [number_of(file) for file in metadata]:
        raise InputError(
            f"{folder}: the {len(img_emb)} files of img_emb and {len(metadata)} of metadata are not numbered alike; "
            "each img_emb_N.npy needs its metadata_N.parquet"
        )
    return list(zip(img_emb, metadata, strict=True))


def _no_store(path: Path) -> str:
    """What a path is that is no store, and the command that makes one."""
    if not path.exists() and not is_pattern(str(path)):
        return f"the store {path} does not exist; make it with: littune embed --pairs … --image … --out {path}"
    if (path / "config.toml").is_file():
        return f"{path} is a run, no store; name the store that embed made"
    why = f"no {FILENAME} and no img_emb/*.npy in it" if path.is_dir() else "a store is a folder"
    stem = path.resolve().stem if path.exists() else "new"
    return f"{path} is no store ({why}); make one with: littune embed --pairs {path} --image … --out stores/{stem}"
