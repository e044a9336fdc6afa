"""Queries a second of exact search and of FAISS on drawn rows, with FAISS's recall@10 beside them.

    python benchmarks/search.py [--rows 100000] [--dims 384 1280] [--kinds hnsw ivfpq] [--threads 2] [--json out.json]

Rows are drawn around 1,000 centres, and queries around rows; the store is written to a temporary folder, opened and
searched as ``Index`` does it, without the text tower and the metadata of hits. Every width is measured in a process of
its own, whose memory is reported: what it held once exact search was ready, beyond what it held before.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from littune.apps.search.approximate import INDEX, open_approximate
from littune.apps.search.building import build_index, recall_of
from littune.apps.search.exact import ExactRows
from littune.apps.search.store_home import Rows
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore
from littune.store.writer import Batch, Row, open_writer
from littune.towers.image.tower import Identity
from littune.towers.text.sources import load_text_tower

K = 10
BATCH = 64
SHARD = 8192
SECONDS = 3.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One way to search one width."""

    dim: int
    rows: int
    how: str
    ready_seconds: float
    """Projecting the rows, or building the index and measuring it."""
    megabytes: float
    """Of memory for exact search, on disk for an index."""
    recall: float
    one_by_one: float
    """Queries a second."""
    in_batches: float

    def to_text(self) -> str:
        """A line for people."""
        return (
            f"{self.rows:>9,} × {self.dim:<5} {self.how:<14} ready in {self.ready_seconds:6.1f} s  "
            f"{self.megabytes:7.1f} MB  recall@{K} {self.recall:.3f}  {self.one_by_one:8.1f} queries/s  "
            f"{self.in_batches:8.1f} in batches of {BATCH}"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1280])
    parser.add_argument("--kinds", nargs="*", default=["hnsw", "ivfpq"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    measured: list[Measured] = []
    for dim in options.dims:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found = pool.apply(measure, (options.rows, dim, options.kinds, options.threads))
        for one in found:
            print(one.to_text(), flush=True)
        measured += found
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in measured], indent=1))


def measure(rows: int, dim: int, kinds: Sequence[str], threads: int) -> list[Measured]:
    """Every way to search rows of one width."""
    torch.set_num_threads(threads)
    model = drawn_model(dim)
    with TemporaryDirectory() as folder:
        store, queries = drawn_store(Path(folder) / "store", rows, dim)
        before = resident()
        started = time.perf_counter()
        exact = ExactRows(model, store)
        ready = time.perf_counter() - started
        measured = [rated("exact", exact, exact, queries, ready, resident() - before, store)]
        streamed = ExactRows(model, store, budget=0)
        measured.append(rated("exact streamed", streamed, exact, queries, 0.0, 0, store))
        for kind in kinds:
            started = time.perf_counter()
            out = Path(folder) / kind
            build_index(model, store, out, kind=kind)
            ready = time.perf_counter() - started
            index = open_approximate(model, store, out)
            measured.append(rated(kind, index, exact, queries, ready, (out / INDEX).stat().st_size, store))
    return measured


def rated(
    how: str,
    searched: Rows,
    exact: Rows,
    queries: np.ndarray,
    ready: float,
    size: int,
    store: EmbeddingStore,
) -> Measured:
    """Recall and rates of one way."""
    return Measured(
        dim=queries.shape[1],
        rows=store.num_rows,
        how=how,
        ready_seconds=ready,
        megabytes=size / 1e6,
        recall=recall_of(searched, exact, queries, K),
        one_by_one=rate(lambda some: searched.find(some, K), queries, 1),
        in_batches=rate(lambda some: searched.find(some, K), queries, BATCH),
    )


def rate(search: Callable[[np.ndarray], object], queries: np.ndarray, size: int) -> float:
    """Queries a second, so many at a time, over a few seconds after a first."""
    search(queries[:size])
    done, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < SECONDS:
        start = done % (len(queries) - size + 1)
        search(queries[start : start + size])
        done += size
    return done / taken


def drawn_model(dim: int) -> LiT:
    """A model that reads rows of this width; its text tower is not used."""
    text = load_text_tower("scratch:Ti", max_tokens=8, texts=["a drawn text"])
    identity = Identity(weights="drawn", pooling="own", dim=dim)
    reference = ImageReference(spec="drawn", pooling="own", identity=identity)
    return LiT(text=text, reference=reference, center=torch.zeros(dim)).eval()


def drawn_store(folder: Path, rows: int, dim: int) -> tuple[EmbeddingStore, np.ndarray]:
    """A store of drawn rows, and unit queries near some of them."""
    random = np.random.default_rng(0)
    centres = random.standard_normal((1000, dim), dtype=np.float32)
    identity = Identity(weights="drawn", pooling="own", dim=dim)
    settings = Settings(
        kind="images", pairs="drawn", texts=(), tower="drawn", identity=identity, classnames=None, templates=None
    )
    queries = []
    with open_writer(folder, settings, {}) as writer:
        for start in range(0, rows, SHARD):
            count = min(SHARD, rows - start)
            embeddings = centres[random.integers(0, 1000, count)] + random.standard_normal((count, dim), np.float32)
            queries.append(embeddings[:20] + random.standard_normal((len(embeddings[:20]), dim), np.float32))
            names = [Row(key=str(start + number), source="drawn") for number in range(count)]
            writer.append(Batch(embeddings=embeddings, rows=names))
            writer.commit()
        writer.finish()
    near = np.concatenate(queries)
    return EmbeddingStore.open(folder), near / np.linalg.norm(near, axis=1, keepdims=True)


def resident() -> int:
    """The memory of this process that is its own, in bytes; what it maps of files is not counted."""
    text = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in text.splitlines() if line.startswith("RssAnon")).split()[1])


if __name__ == "__main__":
    main()
