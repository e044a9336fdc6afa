"""What a run trains on: the rows of its stores, and their texts, each distinct text once.

Embeddings stay on disk (memory-mapped float16); a batch gathers the rows that it needs, and centres them. Class
directions are centred by their own mean, images by the mean of all training images or of another store: the two
lie in one space but not around one point.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from littune.base.errors import InputError, MismatchError
from littune.config import StoreChoice
from littune.model.reference import ImageReference
from littune.store.store import EmbeddingStore

_BLOCK = 8192

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows of (image, text).

    Attributes:
        texts: the distinct texts.
        row_image: for each row, its image's number.
        row_text: for each row, its text's index in ``texts``.
        row_weight: for each row, how many times it is visited in an epoch, in the mean.
    """

    texts: tuple[str, ...]
    row_image: Indices
    row_text: Indices
    row_weight: npt.NDArray[np.float64]

    def digest(self) -> str:
        """The SHA-256 of all of it, so that a run knows whether it goes on with what it began with."""
        digest = hashlib.sha256("\0".join(self.texts).encode())
        for rows in (self.row_image, self.row_text, self.row_weight):
            digest.update(rows.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class StoredImages:
    """The images of several stores, numbered one after the other.

    Attributes:
        stores: the stores.
        centers: for each store, what is subtracted from its embeddings, float32 (dim,).
        image_center: what is to be subtracted from an image's embedding from now on, float32 (dim,).
        seed: decides which view of an image is drawn in a step, where a store has views.
    """

    stores: tuple[EmbeddingStore, ...]
    centers: tuple[Float[Tensor, " dim"], ...]
    image_center: Float[Tensor, " dim"]
    seed: int = 0

    def rows(self, numbers: Indices, step: int) -> Float[Tensor, "n dim"]:
        """Centred embeddings of the images with these numbers, float32; of those with views, one drawn by the step."""
        rows = torch.empty((len(numbers), self.image_center.shape[0]))
        start = 0
        for store, center in zip(self.stores, self.centers, strict=True):
            mine = np.flatnonzero((numbers >= start) & (numbers < start + store.num_rows))
            if len(mine):
                views = _drawn(numbers[mine], step, self.seed, store.num_views + 1) if store.num_views else None
                raw = torch.from_numpy(store.take(numbers[mine] - start, views).astype(np.float32))
                rows[torch.from_numpy(mine)] = raw.sub_(center)
            start += store.num_rows
        return rows

    def checksums(self) -> list[str]:
        """The checksums of all embeddings, views included."""
        return [checksum for store in self.stores for checksum in store.checksums()]

    def name(self, number: int) -> str:
        """What an image is called in messages."""
        for store in self.stores:
            if number < store.num_rows:
                return f"{store.keys()[number]} in {store.path}"
            number -= store.num_rows
        raise IndexError(number)


def load_corpus(choices: Sequence[StoreChoice], *, allow_foreign: bool = False) -> Corpus:
    """Number the images and distinct texts of the chosen stores.

    Args:
        choices: the stores, at least one.
        allow_foreign: admit stores made elsewhere.

    Raises:
        InputError: a store is unfinished or foreign, or has no text in the chosen fields.
    """
    stores = [open_complete(choice.path, allow_foreign=allow_foreign) for choice in choices]
    per_store = [store.texts(choice.fields) for store, choice in zip(stores, choices, strict=True)]
    for store, choice, rows in zip(stores, choices, per_store, strict=True):
        count = sum(len(row) for row in rows)
        if not count:
            fields = ", ".join(choice.fields) or "captions"
            there = ", ".join(sorted({name for row in store.fields() for name in row})) or "none at all"
            raise InputError(
                f"{store.path} has no text in {fields}; name fields that it has ({there}): PATH:WEIGHT:FIELD,…"
            )
        if round(choice.weight * count) < 1:
            raise InputError(f"{store.path}: the weight {choice.weight} leaves none of its pairs; raise it")
    return number_texts(chain.from_iterable(per_store), np.repeat([c.weight for c in choices], [*map(len, per_store)]))


def number_texts(texts_of_images: Iterable[Sequence[str]], weights: npt.NDArray[np.float64]) -> Corpus:
    """The rows of images with these texts, in order; ``weights`` has one number an image."""
    index: dict[str, int] = {}
    texts = [np.asarray([index.setdefault(text, len(index)) for text in row], np.int64) for row in texts_of_images]
    counts = [len(row) for row in texts]
    return Corpus(
        texts=tuple(index),
        row_image=np.repeat(np.arange(len(texts)), counts),
        row_text=np.concatenate(texts),
        row_weight=np.repeat(weights, counts),
    )


def load_images(
    choices: Sequence[StoreChoice],
    *,
    center: str = "mean",
    center_on: EmbeddingStore | None = None,
    seed: int = 0,
    allow_foreign: bool = False,
) -> StoredImages:
    """Open the chosen stores for their embeddings.

    Args:
        choices: the stores, at least one.
        center: ``mean`` or ``none``.
        center_on: a store whose mean centres images, instead of the training images' own.
        seed: of the views that are drawn.
        allow_foreign: admit stores made elsewhere, of which only the dimension can be checked.

    Raises:
        InputError: a store is unfinished or foreign, or a foreign one holds what is no number.
        MismatchError: two stores are of different towers.
    """
    stores = tuple(open_complete(choice.path, allow_foreign=allow_foreign) for choice in choices)
    _check_one_tower([*stores, center_on] if center_on else stores)
    image_center = _image_center(stores, center, center_on)
    centers = tuple(
        _mean([store]) if store.kind == "prototypes" and center == "mean" else image_center for store in stores
    )
    return StoredImages(stores=stores, centers=centers, image_center=image_center, seed=seed)


def _drawn(numbers: Indices, step: int, seed: int, count: int) -> Indices:
    """For each number one of 0…count - 1, drawn by number, step and seed alone (splitmix64)."""
    with np.errstate(over="ignore"):
        mixed = numbers.astype(np.uint64) + np.uint64(((step * 1_000_003 + seed) * 0x9E3779B97F4A7C15) % 2**64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return ((mixed ^ (mixed >> np.uint64(31))) % np.uint64(count)).astype(np.int64)


def image_reference(stores: Sequence[EmbeddingStore]) -> ImageReference:
    """The image tower that a model trained on these stores reads out; one that saw pixels says most of it."""
    return max(map(_reference, stores), key=lambda reference: reference.knowledge)


def open_complete(path: Path, *, allow_foreign: bool = False) -> EmbeddingStore:
    """The finished store at ``path``.

    Raises:
        InputError: there is none, or it is unfinished or empty, or foreign and not admitted.
    """
    store = EmbeddingStore.open(path, allow_foreign=allow_foreign)
    if not store.complete:
        raise InputError(f"the store {path} is not finished; run its embed command again first")
    if not store.num_rows:
        raise InputError(f"the store {path} has no rows")
    return store


def _check_one_tower(stores: Sequence[EmbeddingStore]) -> None:
    """Check that the stores are of one tower, as far as they say of which they are."""
    best = max(stores, key=lambda store: _reference(store).knowledge)
    for store in stores:
        if best.identity is not None and store.identity is not None:
            differences = best.identity.differences(store.identity)
        else:
            differences = [f"another number of dimensions ({best.dim} and {store.dim})"] * (best.dim != store.dim)
        if differences:
            raise MismatchError(f"{best.path} and {store.path} do not train together: {'; '.join(differences)}")


def _reference(store: EmbeddingStore) -> ImageReference:
    if store.manifest is None:
        return ImageReference.unknown()
    settings = store.manifest.settings
    return ImageReference(spec=settings.tower, pooling=settings.identity.pooling, identity=settings.identity)


def _image_center(stores: Sequence[EmbeddingStore], center: str, on: EmbeddingStore | None) -> Float[Tensor, " dim"]:
    if center == "none":
        return torch.zeros(stores[0].dim)
    images = [on] if on else [store for store in stores if store.kind != "prototypes"]
    return _mean(images) if images else torch.zeros(stores[0].dim)


def _mean(stores: Sequence[EmbeddingStore]) -> Float[Tensor, " dim"]:
    total = np.zeros(stores[0].dim, np.float64)
    for store in stores:
        for block in store.iter_embeddings(_BLOCK):
            total += np.asarray(block, np.float64).sum(axis=0)
    return torch.from_numpy(total / sum(store.num_rows for store in stores)).float()
