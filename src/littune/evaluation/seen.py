"""What a model saw in training: near-duplicates of an evaluation set in it, and its queries as banks."""

import dataclasses
from collections.abc import Sequence, Sized
from pathlib import Path

import numpy as np

from littune.base.errors import InputError, LittuneError
from littune.base.progress import log
from littune.config import StoreChoice, read_toml
from littune.evaluation.checks.duplicates import find_duplicates
from littune.evaluation.results import Duplicate
from littune.evaluation.retrieval import Banks
from littune.evaluation.sets.stores import project
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

# Bogolin et al. take the training queries; so many of them say what hubs are.
_BANK = 5_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """The training stores that there are, of images and of class directions."""

    model: LiT
    stores: Sequence[EmbeddingStore]

    @classmethod
    def open(cls, model: LiT, paths: Sequence[str | Path] | None, *, allow_foreign: bool) -> "Seen":
        """Open these stores; None for those that the model's run names and that are still there.

        Raises:
            LittuneError: a store that was named cannot be opened, or is of another image tower.
        """
        if paths is not None:
            return cls(model=model, stores=[_opened(model, path, allow_foreign) for path in paths])
        stores = []
        for path in _stores_of_run(model):
            try:
                stores.append(_opened(model, path, allow_foreign))
            except LittuneError as error:
                log(f"not looked for in what was trained on: {error}")
        return cls(model=model, stores=stores)

    @property
    def images(self) -> list[EmbeddingStore]:
        """The stores of images."""
        return [store for store in self.stores if store.kind != "prototypes"]

    def duplicates(self, store: EmbeddingStore) -> dict[int, Duplicate]:
        """The rows of ``store`` that are (nearly) in a training store; each with the nearest image there."""
        if not self.images:
            raise InputError(f"nothing to look for near-duplicates of {store.path} in: name training stores with seen")
        found: dict[int, Duplicate] = {}
        keys, embeddings = store.keys(), store.embeddings().astype(np.float32)
        for trained in self.images:
            theirs = trained.keys()
            for row, seen_row, cosine in find_duplicates(embeddings, trained):
                if row not in found or cosine > found[row].cosine:
                    found[row] = Duplicate(
                        key=keys[row], seen_key=theirs[seen_row], seen_in=str(trained.path), cosine=cosine
                    )
        return found

    def banks(self) -> Banks | None:
        """Texts and images of the training data, evenly taken; None where there are no images."""
        if not self.images:
            return None
        texts = list(dict.fromkeys(text for store in self.images for row in store.texts() for text in row))
        images = np.concatenate([rows for store in self.images for rows in project(self.model, store)])
        return Banks(texts=self.model.encode_text(texts[:: _stride(texts)]), images=images[:: _stride(images)])


def _stride(items: Sized) -> int:
    return max(1, -(-len(items) // _BANK))


def _opened(model: LiT, path: str | Path, allow_foreign: bool) -> EmbeddingStore:
    store = EmbeddingStore.open(path, allow_foreign=allow_foreign)
    model.check_store(store, allow_foreign=allow_foreign)
    return store


def _stores_of_run(model: LiT) -> list[Path]:
    if model.folder is None or not (model.folder / "config.toml").is_file():
        return []
    specs = read_toml(model.folder / "config.toml").get("store", ())
    assert isinstance(specs, list)
    return [StoreChoice.parse(spec).path for spec in specs]
