"""What a run trains on: the rows of its stores, and their texts, each distinct text once.

Embeddings stay on disk (memory-mapped float16); a batch gathers the rows that it needs, and centres and
normalises them. Class directions are centred by their own mean, images by the mean of all training images
or of another store: the two lie in one space but not around one point.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from littune.base.errors import InputError, MismatchError
from littune.config import StoreChoice
from littune.model.lit import ImageReference, normalize
from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore

_BLOCK = 8192

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Rows of (image, text), over all stores.

    Attributes:
        stores: the stores, their images numbered one after the other.
        centers: for each store, what is subtracted from its embeddings, float32 (dim,).
        image_center: what is to be subtracted from an image's embedding from now on, float32 (dim,).
        texts: the distinct texts.
        row_image: for each row, its image's number.
        row_text: for each row, its text's index in ``texts``.
        row_weight: for each row, how many times it is visited in an epoch, in the mean.
    """

    stores: tuple[EmbeddingStore, ...]
    centers: tuple[Float[Tensor, " dim"], ...]
    image_center: Float[Tensor, " dim"]
    texts: tuple[str, ...]
    row_image: Indices
    row_text: Indices
    row_weight: npt.NDArray[np.float64]

    def images(self, numbers: Indices) -> Float[Tensor, "n dim"]:
        """Unit rows of the images with these numbers, centred, float32."""
        rows = torch.empty((len(numbers), self.image_center.shape[0]))
        start = 0
        for store, center in zip(self.stores, self.centers, strict=True):
            mine = np.flatnonzero((numbers >= start) & (numbers < start + store.num_rows))
            if len(mine):
                raw = store.take(numbers[mine] - start)
                rows[torch.from_numpy(mine)] = normalize(torch.from_numpy(raw.astype(np.float32)) - center)
            start += store.num_rows
        return rows


def load_corpus(
    choices: Sequence[StoreChoice], *, center: str = "mean", center_on: EmbeddingStore | None = None
) -> Corpus:
    """Open the chosen stores and number their images and distinct texts.

    Args:
        choices: the stores, at least one.
        center: ``mean`` or ``none``.
        center_on: a store whose mean centres images, instead of the training images' own.

    Raises:
        InputError: a store is unfinished, or has no text in the chosen fields.
        MismatchError: two stores are of different towers.
    """
    stores = tuple(open_complete(choice.path) for choice in choices)
    _check_one_tower([*stores, center_on] if center_on else stores)
    image_center = _image_center(stores, center, center_on)
    centers = tuple(
        _mean([store]) if store.kind == "prototypes" and center == "mean" else image_center for store in stores
    )
    index: dict[str, int] = {}
    images: list[int] = []
    texts: list[int] = []
    weights: list[float] = []
    first = 0
    for store, choice in zip(stores, choices, strict=True):
        before = len(images)
        for number, row in enumerate(store.texts(choice.fields), start=first):
            for text in row:
                images.append(number)
                texts.append(index.setdefault(text, len(index)))
        if len(images) == before:
            fields = ", ".join(choice.fields) or "captions"
            raise InputError(f"{store.path} has no text in {fields}; name fields that it has: PATH:WEIGHT:FIELD,…")
        if round(choice.weight * (len(images) - before)) < 1:
            raise InputError(f"{store.path}: the weight {choice.weight} leaves none of its pairs; raise it")
        weights += [choice.weight] * (len(images) - before)
        first += store.num_rows
    return Corpus(
        stores=stores,
        centers=centers,
        image_center=image_center,
        texts=tuple(index),
        row_image=np.asarray(images, np.int64),
        row_text=np.asarray(texts, np.int64),
        row_weight=np.asarray(weights, np.float64),
    )


def image_reference(stores: Sequence[EmbeddingStore]) -> ImageReference:
    """The image tower that a model trained on these stores reads out; one that saw pixels says most of it."""
    settings = _settings(_reference(stores))
    return ImageReference(spec=settings.tower, pooling=settings.identity.pooling, identity=settings.identity)


def open_complete(path: Path) -> EmbeddingStore:
    """The finished store at ``path``.

    Raises:
        InputError: there is none, or it is unfinished or empty.
    """
    store = EmbeddingStore.open(path)
    if not store.complete:
        raise InputError(f"the store {path} is not finished; run its embed command again first")
    if not store.num_rows:
        raise InputError(f"the store {path} has no rows")
    return store


def _reference(stores: Sequence[EmbeddingStore]) -> EmbeddingStore:
    return next((store for store in stores if store.kind != "prototypes"), stores[0])


def _settings(store: EmbeddingStore) -> Settings:
    if store.manifest is None:
        raise InputError(f"{store.path} does not say which image tower it is of, so no run can read it out; embed anew")
    return store.manifest.settings


def _check_one_tower(stores: Sequence[EmbeddingStore]) -> None:
    reference = _reference(stores)
    for store in stores:
        differences = _settings(reference).identity.differences(_settings(store).identity)
        if differences:
            raise MismatchError(f"{reference.path} and {store.path} do not train together: {'; '.join(differences)}")


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
