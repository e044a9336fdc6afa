"""Approximate search with FAISS: which rows are near is looked up in its index, how near is computed.

The index is read by memory map. It names more rows than are asked for; these are read from the store and scored
exactly, so scores are those of exact search, and what may be missing is a hit that the index did not name.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from littune.apps.search.exact import Found, best_of
from littune.apps.search.image_side import ImageSide
from littune.base.errors import InputError, MismatchError, MissingExtraError, first_line
from littune.base.files import read_json
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

MANIFEST = "index.json"
INDEX = "index.faiss"
FORMAT, VERSION = "littune-index", 1

_FEW = 10_000
_SMALL = 0.05
"""Where a filter allows no more rows than this, or no larger share of them, these are gone through exactly."""
_LEAST_FOR_PQ = 10_000


def import_faiss() -> Any:
    """The module faiss.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError("an approximate index", "faiss") from error
    return faiss


def digest_of(store: EmbeddingStore) -> str:
    """What changes when a store's embeddings do, or their order."""
    return hashlib.sha256(json.dumps(store.checksums()).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """What an index's folder says of it.

    Raises:
        InputError: it is no index, or of another version.
    """
    if not (folder / MANIFEST).is_file():
        why = "is no index" if folder.exists() else "does not exist"
        raise InputError(f"the index {folder} {why}; make it with: littune index STORE --run … --kind … --out {folder}")
    about = read_json(folder / MANIFEST)
    if (about.get("format"), about.get("version")) != (FORMAT, VERSION):
        raise InputError(f"{folder / MANIFEST} is not the manifest of an index that this littune reads; make it anew")
    return about


def open_approximate(model: LiT, store: EmbeddingStore, folder: Path) -> "ApproximateRows":
    """A store's rows by way of the index in a folder, which ``build_index`` made.

    Raises:
        InputError: the folder holds no index, or it is damaged.
        MismatchError: the index is of another run, or the store has changed since.
        MissingExtraError: faiss is not installed.
    """
    about = read_manifest(folder)
    ImageSide.from_dict(about.get("image_side"), str(folder)).check(model, str(folder))
    if about["store_sha256"] != digest_of(store):
        raise MismatchError(
            f"{store.path} is not what the index {folder} was made of, or has changed since; "
            "make the index anew, into another folder, with: littune index"
        )
    return ApproximateRows(model, store, folder / INDEX, about["kind"])


class ApproximateRows:
    """A store's rows by way of a FAISS index.

    Args:
        model: the model that searches.
        store: the store that the index was made of.
        file: the index.
        kind: which kind it is.

    Raises:
        InputError: the file is damaged.
        MissingExtraError: faiss is not installed.
    """

    def __init__(self, model: LiT, store: EmbeddingStore, file: Path, kind: str) -> None:
        faiss = import_faiss()
        self._model = model
        self._store = store
        self._kind = KINDS[kind]
        try:
            self._index = faiss.read_index(str(file), self._kind.flags(faiss))
        except RuntimeError as error:
            raise InputError(f"{file} is damaged ({first_line(error)}); make the index anew") from error

    def find(
        self, queries: Float32[np.ndarray, "n dim"], k: int, allowed: Bool[np.ndarray, " rows"] | None = None
    ) -> Found:
        """The ``k`` rows nearest to each query, nearly: see ``ExactRows.find``.

        Where ``allowed`` admits few rows, these are gone through exactly. Otherwise the index is told to name only
        admitted ones and looks the further the fewer they are; if it names too few, all that are admitted are gone
        through.
        """
        found = [self._nearest(query[None], k, allowed) for query in queries]
        empty = (np.zeros((0, k), np.float32), np.zeros((0, k), np.int64))
        scores, rows = zip(empty, *found, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def _nearest(self, query: Float32[np.ndarray, "1 dim"], k: int, allowed: np.ndarray | None) -> Found:
        count = self._kind.overfetch(k)
        if count < self._store.num_rows and (allowed is None or allowed.sum() > max(_FEW, _SMALL * len(allowed))):
            rows = self._candidates(query, count, allowed)
            if len(rows) >= k:
                return best_of(self._model, self._store, rows, query, k)
        everything = np.arange(self._store.num_rows) if allowed is None else np.flatnonzero(allowed)
        return best_of(self._model, self._store, everything, query, k)

    def _candidates(
        self, query: Float32[np.ndarray, "1 dim"], count: int, allowed: np.ndarray | None
    ) -> Int64[np.ndarray, " m"]:
        faiss = import_faiss()
        selector = None if allowed is None else faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
        share = 1.0 if allowed is None else float(allowed.mean())
        parameters = self._kind.parameters(faiss, self._index, count, share, selector)
        rows = self._index.search(query, count, params=parameters)[1][0]
        return np.sort(rows[rows >= 0])


class _Hnsw:
    """A graph of neighbours over rows in float16 (Malkov and Yashunin 2016)."""

    def make(self, faiss: Any, dim: int, rows: int) -> Any:
        index = faiss.IndexHNSWSQ(dim, faiss.ScalarQuantizer.QT_fp16, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
        return index

    def flags(self, faiss: Any) -> int:
        flags: int = faiss.IO_FLAG_MMAP_IFC
        return flags

    def overfetch(self, k: int) -> int:
        return 2 * k + 10

    def parameters(self, faiss: Any, index: Any, count: int, share: float, selector: Any) -> Any:
        # Rows that are not allowed are passed through all the same, so that more of them lie on the way.
        return faiss.SearchParametersHNSW(efSearch=int(max(128, 2 * count) / share), sel=selector)

    def num_training(self, rows: int) -> int:
        return 1


class _IvfPq:
    """Lists around centroids, rows in them as codes of one byte for four numbers (Jégou, Douze and Schmid 2011)."""

    def make(self, faiss: Any, dim: int, rows: int) -> Any:
        if rows < _LEAST_FOR_PQ:
            raise InputError(
                f"ivfpq needs at least {_LEAST_FOR_PQ:,} rows to learn its codes from, and there are {rows:,}; "
                "take --kind hnsw, or search without an index"
            )
        codes = next(count for count in range(max(1, dim // 4), 0, -1) if dim % count == 0)
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(dim), dim, self._num_lists(rows), codes, 8, faiss.METRIC_INNER_PRODUCT
        )
        for clustering in (index.cp, index.pq.cp):
            clustering.min_points_per_centroid = 1  # fewer are warned of on stderr, and there are enough
            clustering.max_points_per_centroid = 64
        return index

    def flags(self, faiss: Any) -> int:
        flags: int = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY
        return flags

    def overfetch(self, k: int) -> int:
        return 20 * k + 100

    def parameters(self, faiss: Any, index: Any, count: int, share: float, selector: Any) -> Any:
        return faiss.SearchParametersIVF(nprobe=min(index.nlist, int(max(16, index.nlist // 8) / share)), sel=selector)

    def num_training(self, rows: int) -> int:
        return min(rows, 64 * max(self._num_lists(rows), 256))

    def _num_lists(self, rows: int) -> int:
        return min(65_536, int(2 * rows**0.5))


Kind = _Hnsw | _IvfPq

KINDS: dict[str, Kind] = {"hnsw": _Hnsw(), "ivfpq": _IvfPq()}
"""What FAISS indexes there are: small and fast up to some million rows, and smaller still beyond."""
