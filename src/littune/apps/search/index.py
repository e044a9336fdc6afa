"""Index: what people search with. Where the rows lie and how they are gone through is a matter of its home."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from littune.apps.search.approximate import open_approximate, read_manifest
from littune.apps.search.exact import ExactRows
from littune.apps.search.filters import Where
from littune.apps.search.hits import Hit
from littune.apps.search.postgres import TABLE, is_address, open_table
from littune.apps.search.query import Query, vectors
from littune.apps.search.store_home import StoreHome
from littune.base.errors import InputError
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore


@runtime_checkable
class Home(Protocol):
    """Where the rows of an index lie."""

    def __len__(self) -> int: ...

    def search(self, queries: np.ndarray, k: int, where: Where) -> list[list[Hit]]:
        """The ``k`` images nearest to each of these unit rows under a filter."""


class Index:
    """The images of a store, projected into a model's space and ready to be searched.

    Args:
        model: the model whose text tower reads the queries.
        store: embeddings of the model's image tower, or their folder; None for the store that ``index`` was made of.
        index: the folder of a FAISS index of the store, or ``postgresql://…``, a database that was filled from one;
            None to go through all rows.
        table: the table in the database.
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
        table: str = TABLE,
        allow_foreign: bool = False,
    ) -> None:
        self.model = model
        if is_address(index):
            if store is not None:
                raise InputError("a database holds all that is searched; name it, or a store, not both")
            self._home: Home = open_table(model, str(index), table, allow_foreign=allow_foreign)
            return
        if store is None:
            if index is None:
                raise InputError("there is nothing to search: name a store, or an index")
            store = str(read_manifest(Path(index))["store"])
        if not isinstance(store, EmbeddingStore):
            store = EmbeddingStore.open(store, allow_foreign=allow_foreign)
        model.check_store(store, allow_foreign=allow_foreign)
        if not store.num_rows:
            raise InputError(f"{store.path} holds no rows to search")
        rows = ExactRows(model, store) if index is None else open_approximate(model, store, Path(index))
        self._home = StoreHome(store, rows)

    def __len__(self) -> int:
        return len(self._home)

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
        return self._home.search(vectors(self.model, queries), k, where or {})
