"""EmbeddingStore: embeddings on disk, with the keys and texts of their rows.

Reads littune's own folders and those that clip-retrieval and its kin write (no manifest, so only a width is
known of what made them). Opening reads headers alone; rows are read when they are asked for.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float16, Int64

from littune.base.errors import InputError
from littune.base.files import fingerprint_of_file, sha256_of_file
from littune.base.stores import MANIFEST
from littune.base.stores import is_store as is_store
from littune.pairs.patterns import is_pattern
from littune.pairs.texts import texts_from
from littune.store.foreign import check_foreign, foreign_files, usable
from littune.store.manifest import Manifest, has_manifest
from littune.store.metadata import (
    TEXT_COLUMNS,
    columns_of,
    fields_of,
    read_keys,
    read_rows,
    read_tables,
    schema_of,
    texts_of,
)
from littune.store.shards import check_manifest, img_emb_path, map_embeddings, metadata_path
from littune.towers.image.tower import Identity

_BLOCK = 8192

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
        files = foreign_files(folder)
        if not files:
            raise InputError(_no_store(folder))
        if not allow_foreign:
            raise InputError(
                f"{folder} is a foreign store: littune did not write it, so nothing tells which tower made it; "
                "if you know that it was the right one, admit it with --allow-foreign"
            )
        rows_of_shards, dim = check_foreign(files)
        return cls(folder, None, files, rows_of_shards, dim)

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
        return np.concatenate([*self.iter_embeddings(_BLOCK), np.empty((0, self.dim), np.float16)])

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
            taken[mine] = self._read(shard, mapped, rows[mine] - self._ends[shard] + len(mapped))
        return taken

    def iter_embeddings(self, batch: int) -> Iterator[Float16[np.ndarray, "n dim"]]:
        """The rows in their order, at most ``batch`` at a time, which is all that comes into memory.

        Raises:
            InputError: a foreign store's value is not a number or does not fit float16.
        """
        for shard in range(len(self.files)):
            mapped = self._mapped(shard)
            for start in range(0, len(mapped), batch):
                yield self._read(shard, mapped, slice(start, start + batch))

    def texts(self, names: Sequence[str] = ()) -> list[tuple[str, ...]]:
        """The texts of each row.

        Args:
            names: fields that supply them, as in ``open_pairs``; none for those that were chosen when the store was
                made. A row that has none of the fields gives an empty tuple.
        """
        if not names:
            return [texts_of(row, foreign=self._foreign) for row in self._rows(TEXT_COLUMNS)]
        rows = self._rows(columns_of(names))
        return [texts_from(fields_of(row, foreign=self._foreign), names) for row in rows]

    def keys(self) -> list[str]:
        """What names each row within its source."""
        return list(read_keys([metadata for _, metadata in self.files]))

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
        return [fields_of(row, foreign=self._foreign) for row in self._rows(None)]

    def metadata_schema(self) -> pa.Schema:
        """The columns of ``iter_metadata``."""
        return schema_of([metadata for _, metadata in self.files])

    def iter_metadata(self, batch: int) -> Iterator[pa.Table]:
        """The metadata's columns as they are, ``batch`` rows at a time."""
        return read_tables([metadata for _, metadata in self.files], batch)

    def checksums(self) -> list[str]:
        """What changes when an embedding does, views included; of a foreign store, whose files are large, marks."""
        if self.manifest is None:
            return [fingerprint_of_file(embeddings) for embeddings, _ in self.files]
        shards = self.manifest.shards
        return [checksum for shard in shards for checksum in (shard.img_emb_sha256, *shard.views_sha256)]

    def verify(self) -> None:
        """Read everything and compare it with the manifest's checksums.

        Raises:
            InputError: a file is not as it was written; for a foreign store, a value is not a number.
        """
        if self.manifest is None:
            for _ in self.iter_embeddings(_BLOCK):
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

    def _read(self, shard: int, mapped: np.ndarray, rows: slice | np.ndarray) -> Float16[np.ndarray, "n dim"]:
        """These rows of a shard; those of littune's own stores were checked when they were written."""
        if self.manifest is not None:
            embeddings: np.ndarray = mapped[rows]
            return embeddings
        return usable(
            mapped[rows],
            self.files[shard][0],
            lambda number: rows.start + number if isinstance(rows, slice) else int(rows[number]),
        )

    @property
    def _foreign(self) -> bool:
        return self.manifest is None

    def _rows(self, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
        """The rows of the metadata, each with those of ``columns`` (None: all) that its file has."""
        for _, file in self.files:
            yield from read_rows(file, columns)


def _no_store(path: Path) -> str:
    """What a path is that is no store, and the command that makes one."""
    if not path.exists() and not is_pattern(str(path)):
        return f"the store {path} does not exist; make it with: littune embed --pairs … --image … --out {path}"
    if (path / "config.toml").is_file():
        return f"{path} is a run, no store; name the store that embed made"
    why = f"no {MANIFEST} and no img_emb/*.npy in it" if path.is_dir() else "a store is a folder"
    stem = path.resolve().stem if path.exists() else "new"
    return f"{path} is no store ({why}); make one with: littune embed --pairs {path} --image … --out stores/{stem}"
