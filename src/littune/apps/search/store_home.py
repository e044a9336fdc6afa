"""StoreHome: a store of images as the home of an index; its metadata is read where a filter or a hit asks for it."""

from collections import OrderedDict
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from littune.apps.search.exact import Found
from littune.apps.search.filters import Where, conditions_of
from littune.apps.search.hits import Captions, Hit
from littune.apps.search.masks import allowed_rows
from littune.store.store import EmbeddingStore

_FILTERS = 16
"""The rows that so many filters allow are remembered."""


@runtime_checkable
class Rows(Protocol):
    """A way to go through the rows of a store."""

    def find(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """The ``k`` rows nearest to each query, as ``ExactRows.find`` gives them."""


class StoreHome:
    """A store, and a way to go through its rows."""

    def __init__(self, store: EmbeddingStore, rows: Rows) -> None:
        self.store = store
        self._rows = rows
        self._captions = Captions(store)
        self._allowed: OrderedDict[str, Bool[np.ndarray, " rows"]] = OrderedDict()

    def __len__(self) -> int:
        return self.store.num_rows

    def search(self, queries: Float32[np.ndarray, "n dim"], k: int, where: Where) -> list[list[Hit]]:
        """The ``k`` images nearest to each of these unit rows under a filter.

        Raises:
            InputError: there is no such column, or the metadata cannot be read.
        """
        found = self._rows.find(queries, min(k, len(self)), self._allow(where) if where else None)
        return [self._hits(scores, rows) for scores, rows in zip(*found, strict=True)]

    def _allow(self, where: Where) -> Bool[np.ndarray, " rows"]:
        conditions = conditions_of(where, self.store.classnames)
        name = repr(conditions)
        if name not in self._allowed:
            self._allowed[name] = allowed_rows(self.store, conditions)
        self._allowed.move_to_end(name)
        if len(self._allowed) > _FILTERS:
            self._allowed.popitem(last=False)
        return self._allowed[name]

    def _hits(self, scores: Float32[np.ndarray, " k"], rows: np.ndarray) -> list[Hit]:
        there = rows >= 0
        return self._captions.hits(rows[there].tolist(), scores[there].tolist())
