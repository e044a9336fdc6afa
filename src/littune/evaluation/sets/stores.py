"""Evaluation sets as stores: a store is opened; anything else is embedded once, into a cache.

The cached store's name comes from the image tower's identity, the spec and the contents of what it names,
so a changed tower or data set is embedded anew, and an interrupted embedding goes on.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from littune.base.errors import InputError
from littune.base.files import littune_cache
from littune.base.stores import is_store
from littune.model.lit import LiT
from littune.pairs.base import Source
from littune.pairs.borders import crop_borders
from littune.pairs.open import open_pairs
from littune.store.embed import embed
from littune.store.manifest import has_manifest
from littune.store.store import EmbeddingStore
from littune.towers.image.tower import Identity

_BLOCK = 8192


def open_set(
    model: LiT,
    data: str | Path | EmbeddingStore,
    *,
    place: Path | None = None,
    texts: Sequence[str] = (),
    border: int = 0,
    allow_foreign: bool = False,
    batch_size: int = 32,
    workers: int = 2,
) -> EmbeddingStore:
    """The store of ``data``, checked to be complete and of the model's image tower; pairs are embedded if need be.

    Args:
        model: the model that is to read the store.
        data: a store, its folder, or the spec of pairs or labelled images.
        place: the folder in which pairs are embedded; by default littune's cache.
        texts: the fields that supply the texts of pairs.
        border: so many pixels are cut off each side of an image before it is embedded.
        allow_foreign: admit a store made elsewhere, of which only the dimension can be checked.
        batch_size: how many images the tower sees at once.
        workers: how many threads decode images.

    Raises:
        InputError: the set cannot be used, or is empty or unfinished.
        MismatchError: the store is of another image tower.
    """
    if border and (isinstance(data, EmbeddingStore) or is_store(data)):
        raise InputError(
            f"{data if isinstance(data, str | Path) else data.path} is a store, and nothing tells whether the border "
            "was cut off its images; name the images themselves"
        )
    if isinstance(data, EmbeddingStore):
        store = data
    elif is_store(data):
        store = EmbeddingStore.open(data, allow_foreign=allow_foreign)
    else:
        source = open_pairs(data)
        if texts and source.classnames is None:
            source = open_pairs(data, texts=texts)
        source = crop_borders(source, border) if border else source
        store = _embedded(model, source, place or _cache(), batch_size=batch_size, workers=workers)
    if not store.complete:
        raise InputError(f"{store.path} is unfinished ({store.num_rows} rows so far); embed it to the end first")
    if not store.num_rows:
        raise InputError(f"{data if isinstance(data, str | Path) else data.path} holds no usable image to score on")
    model.check_store(store, allow_foreign=allow_foreign)
    return store


def project(model: LiT, store: EmbeddingStore) -> Iterator[Float32[np.ndarray, "n dim"]]:
    """A store's rows in the model's space, of unit length, a block at a time."""
    shift = _shift(model, store)
    for block in store.iter_embeddings(_BLOCK):
        raw = torch.from_numpy(block.astype(np.float32)).to(model.center.device)
        with torch.no_grad():
            yield model.project_images(raw + shift).cpu().numpy()


def project_rows(model: LiT, store: EmbeddingStore, rows: Int64[np.ndarray, " n"]) -> Float32[np.ndarray, "n dim"]:
    """These rows of a store in the model's space, of unit length."""
    raw = torch.from_numpy(store.take(rows).astype(np.float32)).to(model.center.device)
    with torch.no_grad():
        projected: np.ndarray = model.project_images(raw + _shift(model, store)).cpu().numpy()
    return projected


def _shift(model: LiT, store: EmbeddingStore) -> Tensor:
    """What moves a store's mean to where the model's images have it: class directions lie around their own mean."""
    center = model.center
    if store.kind != "prototypes" or not center.any():
        return torch.zeros_like(center)
    mean = store.embeddings().mean(axis=0, dtype=np.float64)
    return center - torch.from_numpy(mean.astype(np.float32)).to(center.device)


@contextmanager
def place_of_sets(model: LiT) -> Iterator[Path]:
    """Where pairs are embedded: littune's cache, or, for an image tower that is being trained, a folder that goes."""
    if model.image is None:
        yield _cache()
        return
    with TemporaryDirectory() as folder:
        yield Path(folder)


def _cache() -> Path:
    return littune_cache() / "stores"


def _embedded(model: LiT, source: Source, place: Path, *, batch_size: int, workers: int) -> EmbeddingStore:
    identity = model.reference.identity
    if identity is None or not identity.preprocess:
        # A model trained on class directions alone knows no preprocessing; the tower itself does.
        identity = model.image_tower.identity
    folder = place / _digest(identity, source)
    if has_manifest(folder) and (store := EmbeddingStore.open(folder)).complete:
        return store
    return embed(model.image_tower, source, folder, batch_size=batch_size, workers=workers)


def _digest(identity: Identity, source: Source) -> str:
    parts = [[part.name, part.fingerprint()] for part in source.parts()]
    about = [identity.to_dict(), source.spec, source.texts, source.classnames, source.templates, parts]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
