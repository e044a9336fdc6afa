"""Index: what people search with. Where the rows lie, and how they are gone through, is a matter of its places."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32

from littune.apps.search.approximate import open_approximate, read_manifest
from littune.apps.search.exact import ExactRows, Found
from littune.apps.search.filters import Where, conditions_of
from littune.apps.search.hits import Captions, Hit
from littune.apps.search.masks import allowed_rows
from littune.apps.search.query import Query, vectors
from littune.base.errors import InputError
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

_FILTERS = 16
"""The rows that so many filters allow are remembered."""


@runtime_checkable
class Rows(Protocol):
    """A way to go through the rows of a store."""

    def find(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> Found:
        """The ``k`` rows nearest to each query, as ``ExactRows.find`` gives them."""


class Index:
    """The images of a store, projected into a model's space and ready to be searched.

    Args:
        model: the model whose text tower reads the queries.
        store: embeddings of the model's image tower, or their folder; None for the store that ``index`` was made of.
        index: the folder of a FAISS index of the store; None to go through all rows.
        allow_foreign: admit a store made elsewhere, of which only the dimension can be checked.

    Raises:
        InputError: the store or the index cannot be opened, or there are no rows.
        MismatchError: the store is of another image tower, or the index of another run or store.
        MissingExtraError: the index needs a package that is not installed.
    """

    def __init__(
        self,
        model: LiT,
        store: str | Path | EmbeddingStore | None = None,
        *,
        index: str | Path | None = None,
        allow_foreign: bool = False,
    ) -> None:
        if store is None:
            if index is None:
                raise InputError("there is nothing to search: name a store, or an index")
            store = str(read_manifest(Path(index))["store"])
        if not isinstance(store, EmbeddingStore):
            store = EmbeddingStore.open(store, allow_foreign=allow_foreign)
        model.check_store(store, allow_foreign=allow_foreign)
        if not store.num_rows:
            raise InputError(f"{store.path} holds no rows to search")
        self.model = model
        self.store = store
        self._rows: Rows = ExactRows(model, store) if index is None else open_approximate(model, store, Path(index))
        self._captions = Captions(store)
        self._allowed: OrderedDict[str, Bool[np.ndarray, " rows"]] = OrderedDict()

    def __len__(self) -> int:
        return self.store.num_rows

    def search(self, query: str | Query, *, k: int = 5, where: Where | None = None) -> list[Hit]:
        """The ``k`` images nearest to the query, best first; equal scores in the store's order.

        Args:
            query: words, or a ``Query`` of words, a picture, both, and what is not wanted.
            k: how many; where there are fewer, all of them.
            where: what must hold of a column or field of the metadata, by its name: a value, a list (any of it), or
                ``{"min": …, "max": …}``.

        Raises:
            InputError: the query is blank, ``k`` is below 1, or there is no such column.
        """
        return self.search_many([query], k=k, where=where)[0]

    def search_many(self, queries: Sequence[str | Query], *, k: int = 5, where: Where | None = None) -> list[list[Hit]]:
        """``search`` for several queries at once."""
        if k < 1:
            raise InputError(f"k = {k} is not usable: it must be at least 1")
        found = self._find(vectors(self.model, queries), min(k, len(self)), where or {})
        return [self._hits(scores, rows) for scores, rows in zip(*found, strict=True)]

    def _find(self, queries: Float32[np.ndarray, "n dim"], k: int, where: Where) -> Found:
        return self._rows.find(queries, k, self._allow(where) if where else None)

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
