"""Exact search: a streamed matrix product over a store's projected rows.

Rows are projected once and kept up to a share of the machine's memory; those beyond it are read by memory map and
projected anew in every search.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Int64

from littune.base.memory import total_memory
from littune.evaluation.sets.stores import project, project_rows
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

_SCORES = 1 << 24
"""So many scores are computed at once."""
_STREAMED = 8192

Found = tuple[Float32[np.ndarray, "n k"], Int64[np.ndarray, "n k"]]
"""Scores and the numbers of rows, best first; -inf and -1 where there are not as many."""


class ExactRows:
    """The rows of a store, to be compared with queries one and all.

    Args:
        model: the model whose space the rows are projected into.
        store: embeddings of its image tower.
        budget: the bytes of projected rows that are kept in memory; by default a quarter of the machine's.
    """

    def __init__(self, model: LiT, store: EmbeddingStore, *, budget: int | None = None) -> None:
        self._model = model
        self._store = store
        budget = total_memory() // 4 if budget is None else budget
        num_kept = min(store.num_rows, budget // (4 * model.dim))
        self._kept = np.empty((num_kept, model.dim), np.float32)
        filled = 0
        for block in project(model, store):
            if filled == num_kept:
                break
            self._kept[filled : filled + len(block)] = block[: num_kept - filled]
            filled += min(len(block), num_kept - filled)

    def find(
        self, queries: Float32[np.ndarray, "n dim"], k: int, allowed: Bool[np.ndarray, " rows"] | None = None
    ) -> Found:
        """The scores and numbers of the ``k`` rows nearest to each query, best first, equal ones in the store's order.

        Args:
            queries: unit rows.
            k: how many.
            allowed: which rows may be found; None for all.
        """
        best = Best(len(queries), k)
        for start, rows in self._blocks(max(1, _SCORES // max(1, len(queries)))):
            chosen = None if allowed is None else allowed[start : start + len(rows)]
            if chosen is not None and not chosen.any():
                continue
            scores = queries @ rows.T
            if chosen is not None:
                scores[:, ~chosen] = -np.inf
            best.add(scores, np.arange(start, start + len(rows)))
        return best.scores, best.rows

    def _blocks(self, size: int) -> Iterator[tuple[int, Float32[np.ndarray, "b dim"]]]:
        """Each block with the number of its first row."""
        for start in range(0, len(self._kept), size):
            yield start, self._kept[start : start + size]
        size = min(size, _STREAMED)
        for start in range(len(self._kept), self._store.num_rows, size):
            numbers = np.arange(start, min(start + size, self._store.num_rows))
            yield start, project_rows(self._model, self._store, numbers)


def best_of(
    model: LiT, store: EmbeddingStore, rows: Int64[np.ndarray, " m"], queries: Float32[np.ndarray, "n dim"], k: int
) -> Found:
    """``ExactRows.find`` among a few rows, given in ascending order and read anew."""
    best = Best(len(queries), k)
    for start in range(0, len(rows), _STREAMED):
        some = rows[start : start + _STREAMED]
        best.add(queries @ project_rows(model, store, some).T, some)
    return best.scores, best.rows


class Best:
    """The best ``k`` of all that was added so far, for each of ``n`` queries.

    Attributes:
        scores: (n, k), best first; -inf where there are not as many.
        rows: (n, k), which they are; -1 where there are not as many.
    """

    def __init__(self, n: int, k: int) -> None:
        self.scores = np.full((n, k), -np.inf, np.float32)
        self.rows = np.full((n, k), -1, np.int64)

    def add(self, scores: Float32[np.ndarray, "n b"], rows: Int64[np.ndarray, " b"]) -> None:
        """Take in rows that come after all earlier ones, in their order."""
        for query, of_query in enumerate(scores):
            # A later row that ties with the worst of the best does not displace it.
            found = np.flatnonzero(of_query > self.scores[query, -1])
            k = self.scores.shape[1]
            if len(found) > k:
                found = found[of_query[found] >= np.partition(of_query[found], -k)[-k]]
            if len(found):
                self._merge(query, of_query[found], rows[found])

    def _merge(self, query: int, scores: Float32[np.ndarray, " m"], rows: Int64[np.ndarray, " m"]) -> None:
        all_scores = np.concatenate([self.scores[query], scores])
        order = np.argsort(-all_scores, kind="stable")[: self.scores.shape[1]]
        self.scores[query] = all_scores[order]
        self.rows[query] = np.concatenate([self.rows[query], rows])[order]
