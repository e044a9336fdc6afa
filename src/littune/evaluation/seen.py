"""What a model saw in training: near-duplicates of an evaluation set in it, and its queries as banks."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from littune.base.errors import InputError, LittuneError
from littune.base.progress import log
from littune.config import StoreChoice, read_toml
from littune.evaluation.checks.duplicates import find_duplicates
from littune.evaluation.results import Duplicate
from littune.evaluation.retrieval import Banks
from littune.evaluation.sets.stores import project_rows
from littune.evaluation.settings import Settings
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

# Bogolin et al. take the training queries; so many of them say what hubs are.
_BANK = 5_000


@dataclass(frozen=True, kw_only=True)
class SeenStore:
    """A store of images that a model was trained on, and the fields that its texts were taken from."""

    store: EmbeddingStore
    fields: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """The stores of images that a model was trained on."""

    model: LiT
    stores: Sequence[SeenStore]

    @classmethod
    def open(cls, model: LiT, settings: Settings) -> "Seen | None":
        """Open the stores that were named, else those that the model's run names and that are still there.

        Returns:
            None where no check looks at them; or, when all checks were asked for, where there are none.

        Raises:
            InputError: there are none for the check that was asked for.
            LittuneError: a store that was named cannot be opened, or is of another image tower.
        """
        if not settings.looks_back:
            return None
        stores = _named(model, settings) if settings.seen is not None else _of_run(model, settings)
        images = [its for its in stores if its.store.kind != "prototypes"]
        if images:
            return cls(model=model, stores=images)
        why = "no store of images that the model was trained on is there; name one with seen"
        if "all" not in settings.checks:
            raise InputError(f"{why}, or leave the checks duplicates and hubness out")
        log(f"neither near-duplicates nor normalised hubness: {why}")
        return None

    @property
    def paths(self) -> list[str]:
        """Where the stores lie."""
        return [str(its.store.path) for its in self.stores]

    def duplicates(self, store: EmbeddingStore) -> dict[int, Duplicate]:
        """The rows of ``store`` that are (nearly) in a training store; each with the nearest image there."""
        found: dict[int, Duplicate] = {}
        keys, embeddings = store.keys(), store.embeddings().astype(np.float32)
        for trained in (its.store for its in self.stores):
            theirs = trained.keys()
            for row, seen_row, cosine in find_duplicates(embeddings, trained):
                if row not in found or cosine > found[row].cosine:
                    found[row] = Duplicate(
                        key=keys[row], seen_key=theirs[seen_row], seen_in=str(trained.path), cosine=cosine
                    )
        return found

    @cached_property
    def banks(self) -> Banks | None:
        """Texts and images of the training data, evenly taken; None where there are no texts."""
        texts = [text for its in self.stores for row in its.store.texts(its.fields) for text in row]
        texts = list(dict.fromkeys(texts))
        if not texts:
            log("no normalised hubness: the stores that were trained on have no texts")
            return None
        every = sum(its.store.num_rows for its in self.stores)
        images = [
            project_rows(self.model, its.store, np.arange(0, its.store.num_rows, _stride(range(every))))
            for its in self.stores
        ]
        return Banks(texts=self.model.encode_text(texts[:: _stride(texts)]), images=np.concatenate(images))


def _stride(items: Sized) -> int:
    return max(1, -(-len(items) // _BANK))


def _named(model: LiT, settings: Settings) -> list[SeenStore]:
    assert settings.seen is not None
    return [_opened(model, StoreChoice(path=Path(path)), settings.allow_foreign) for path in settings.seen]


def choices_of_run(folder: Path | None) -> list[StoreChoice]:
    """The stores that a run was trained on; none where it was trained on pixels, or does not say."""
    if folder is None or not (folder / "config.toml").is_file():
        return []
    specs = read_toml(folder / "config.toml").get("store", [])
    assert isinstance(specs, list)
    return [StoreChoice.parse(spec) for spec in specs]


def _of_run(model: LiT, settings: Settings) -> list[SeenStore]:
    stores = []
    for choice in choices_of_run(model.folder):
        try:
            stores.append(_opened(model, choice, settings.allow_foreign))
        except LittuneError as error:
            log(f"not looked for in what was trained on: {error}")
    return stores


def _opened(model: LiT, choice: StoreChoice, allow_foreign: bool) -> SeenStore:
    store = EmbeddingStore.open(choice.path, allow_foreign=allow_foreign)
    model.check_store(store, allow_foreign=allow_foreign)
    return SeenStore(store=store, fields=choice.fields)
