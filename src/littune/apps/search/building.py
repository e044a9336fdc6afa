"""A FAISS index of a store: built a block at a time, and measured against exact search before it is handed over."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from littune.apps.search.approximate import (
    FORMAT,
    INDEX,
    KINDS,
    MANIFEST,
    VERSION,
    ApproximateRows,
    digest_of,
    import_faiss,
    read_manifest,
)
from littune.apps.search.exact import ExactRows
from littune.apps.search.hits import Captions
from littune.apps.search.image_side import ImageSide
from littune.apps.search.store_home import Rows
from littune.base.errors import InputError, MismatchError
from littune.base.files import folder_lock, write_atomic, write_json
from littune.base.progress import track
from littune.evaluation.sets.stores import project, project_rows
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

_K = 10
_QUERIES = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An index, and how well it finds."""

    kind: str
    rows: int
    bytes: int
    recall: float
    """The mean share of the ten nearest by exact search that are among the ten found."""
    queries: str
    """What was searched for to measure it."""
    new: bool = True
    """False where it was there already."""

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """A line for people."""
        there = "" if self.new else "there already: "
        return (
            f"{there}{self.kind} index of {self.rows:,} rows, {self.bytes / 1e6:,.1f} MB; "
            f"recall@{_K} {self.recall:.3f} against exact search ({self.queries})"
        )


def build_index(
    model: LiT, store: str | Path | EmbeddingStore, out: Path, *, kind: str = "hnsw", allow_foreign: bool = False
) -> Built:
    """Build the index of a store for a run and those with the same image side; one that is there already is kept.

    Args:
        model: the model whose space the rows are projected into.
        store: embeddings of its image tower, or their folder.
        out: the folder to write.
        kind: "hnsw", a graph over rows in float16; or "ivfpq", lists of short codes.
        allow_foreign: admit a store made elsewhere, of which only the dimension can be checked.

    Raises:
        InputError: the store cannot be used or has too few rows, there is no such kind, or ``out`` holds other things.
        MismatchError: the store is of another image tower, or ``out`` holds another index.
        MissingExtraError: faiss is not installed.
    """
    faiss = import_faiss()
    if kind not in KINDS:
        raise InputError(f"there is no kind of index called {kind!r}; choose {' or '.join(KINDS)}")
    if not isinstance(store, EmbeddingStore):
        store = EmbeddingStore.open(store, allow_foreign=allow_foreign)
    model.check_store(store, allow_foreign=allow_foreign)
    if not store.num_rows:
        raise InputError(f"{store.path} holds no rows to index")
    about = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "store": str(store.path.resolve()),
        "store_sha256": digest_of(store),
        "image_side": ImageSide.of(model).to_dict(),
    }
    if (out / MANIFEST).is_file():
        return _there_already(out, about)
    if out.exists() and not _is_free(out):
        raise InputError(f"{out} holds other things than an index; choose another folder")
    index = _fill(faiss, model, store, kind)
    with folder_lock(out):
        write_atomic(out / INDEX, lambda file: faiss.write_index(index, faiss.PyCallbackIOWriter(file.write)))
        del index
        queries, what = _sample(model, store)
        approximate = ApproximateRows(model, store, out / INDEX, kind)
        recall = recall_of(approximate, ExactRows(model, store, budget=0), queries, min(_K, store.num_rows))
        size = (out / INDEX).stat().st_size
        built = Built(kind=kind, rows=store.num_rows, bytes=size, recall=recall, queries=what)
        write_json(out / MANIFEST, about | {"measured": built.to_dict()})
    return built


def recall_of(approximate: Rows, exact: Rows, queries: Float32[np.ndarray, "n dim"], k: int = _K) -> float:
    """The mean share of the ``k`` nearest by exact search that are among the ``k`` found."""
    found, expected = approximate.find(queries, k)[1], exact.find(queries, k)[1]
    return float(np.mean([np.isin(*rows).mean() for rows in zip(expected, found, strict=True)]))


def _is_free(out: Path) -> bool:
    """Whether nothing lies there but what an interrupted build left."""
    return out.is_dir() and all(file.name == INDEX or file.name.startswith(".") for file in out.iterdir())


def _there_already(out: Path, about: Mapping[str, object]) -> Built:
    there = read_manifest(out)
    differing = [name for name in about if there.get(name) != about[name]]
    if differing:
        raise MismatchError(
            f"{out} holds another index (its {', '.join(differing)} differ); choose another folder, or delete it"
        )
    return Built(**(there["measured"] | {"new": False}))


def _fill(faiss: Any, model: LiT, store: EmbeddingStore, kind: str) -> Any:
    """The FAISS index of all rows, in memory."""
    index = KINDS[kind].make(faiss, model.dim, store.num_rows)
    sample = np.linspace(0, store.num_rows - 1, KINDS[kind].num_training(store.num_rows)).astype(np.int64)
    index.train(project_rows(model, store, sample))
    with track("indexing", total=store.num_rows, unit="rows") as advance:
        for block in project(model, store):
            index.add(block)
            advance(len(block))
    return index


def _sample(model: LiT, store: EmbeddingStore) -> tuple[Float32[np.ndarray, "n dim"], str]:
    """Queries to measure with, and what they are: captions where the store has some, else its own images."""
    rows = np.unique(np.linspace(0, store.num_rows - 1, _QUERIES).astype(np.int64))
    hits = Captions(store).hits(rows.tolist(), [0.0] * len(rows))
    captions = list(dict.fromkeys(hit.caption for hit in hits if hit.caption))
    if captions:
        return model.encode_text(captions), f"for {len(captions)} of its captions"
    return project_rows(model, store, rows), f"for {len(rows)} of its images"
