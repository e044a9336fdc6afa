"""Search a store of images by words: an exact matrix product over the projected embeddings."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from littune.base.errors import InputError
from littune.evaluation.sets.stores import project
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One image found: its cosine with the query, and what the store says of it."""

    score: float
    key: str
    source: str
    caption: str

    def to_dict(self) -> dict[str, object]:
        """The hit as JSON values."""
        return asdict(self)


class Index:
    """The images of a store, projected into a model's space and ready to be searched.

    Args:
        model: the model whose text tower reads the queries.
        store: embeddings of the model's image tower, or their folder.
        allow_foreign: admit a store made elsewhere, of which only the dimension can be checked.

    Raises:
        InputError: the store cannot be opened, or has no rows.
        MismatchError: the store is of another image tower.
    """

    def __init__(self, model: LiT, store: str | Path | EmbeddingStore, *, allow_foreign: bool = False) -> None:
        if not isinstance(store, EmbeddingStore):
            store = EmbeddingStore.open(store, allow_foreign=allow_foreign)
        model.check_store(store, allow_foreign=allow_foreign)
        self.model = model
        self.store = store
        if not store.num_rows:
            raise InputError(f"{store.path} holds no rows to search")
        self._about = [
            {"key": key, "source": source, "caption": texts[0] if texts else ""}
            for key, source, texts in zip(store.keys(), store.sources(), store.texts(), strict=True)
        ]
        self._rows = np.concatenate(list(project(model, store)))

    def __len__(self) -> int:
        return len(self._rows)

    def search(self, query: str, *, k: int = 5) -> list[Hit]:
        """The ``k`` images nearest to the words, best first; equal scores in the store's order.

        Raises:
            InputError: the query is blank or ``k`` is below 1.
        """
        return self.search_many([query], k=k)[0]

    def search_many(self, queries: list[str], *, k: int = 5) -> list[list[Hit]]:
        """``search`` for several queries at once."""
        if k < 1:
            raise InputError(f"k = {k} is not usable: it must be at least 1")
        if not all(query.strip() for query in queries):
            raise InputError("the query is blank; give some words to search for")
        scores = self.model.encode_text(queries) @ self._rows.T
        return [self._hits(row, k) for row in scores]

    def _hits(self, scores: npt.NDArray[np.float32], k: int) -> list[Hit]:
        best = np.argsort(-scores, kind="stable")[:k]
        return [Hit(score=float(scores[row]), **self._about[row]) for row in best]
