"""Where a run's rows and images come from: stores of a locked tower's embeddings, or pairs, seen by a tower live."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from littune.base.distributed import Ranks
from littune.base.errors import InputError, MismatchError
from littune.base.files import littune_cache, write_atomic
from littune.base.progress import log, track
from littune.config import Augment, StoreChoice, TrainConfig
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.pairs.images import index_images
from littune.pairs.open import open_pairs
from littune.store.store import EmbeddingStore
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.tuning.data.batches import Indices
from littune.tuning.data.corpus import (
    Corpus,
    StoredImages,
    image_reference,
    load_corpus,
    load_images,
    number_texts,
    open_complete,
)
from littune.tuning.data.pixels import PixelImages
from littune.tuning.data.sides import live_rows

_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where a run's images come from.

    Attributes:
        reference: the image tower that they are seen by.
        center: what is subtracted from its embeddings.
        name: the words for an image's number in messages.
        contents: changes when the tower or the images do.
        stored: embeddings in stores; None where pixels are read.
        pixels: the training images.
        tower: the tower that runs on them.
    """

    reference: ImageReference
    center: Float[Tensor, " image_dim"]
    name: Callable[[int], str]
    contents: str
    stored: StoredImages | None = None
    pixels: PixelImages | None = None
    tower: ImageTower | None = None


def spill_of(config: TrainConfig, ranks: Ranks) -> Path:
    """Where images that lie in no file of their own are copied to while the run lasts."""
    return config.out / f".images.{ranks.rank}.bin"


def from_stores(config: TrainConfig, begun: LiT | None, ranks: Ranks) -> tuple[Corpus, ImageSource]:
    """The rows of ``--store``, and their embeddings.

    Args:
        config: the run's settings.
        begun: the model of ``--from``, which must be of the same image tower.
        ranks: the first of them says what is taken on trust.
    """
    choices = [StoreChoice.parse(spec) for spec in config.store]
    admitted = config.allow_foreign
    center_on = open_complete(Path(config.center_on), allow_foreign=admitted) if config.center_on else None
    corpus = load_corpus(choices, allow_foreign=admitted)
    stored = load_images(choices, center=config.center, center_on=center_on, seed=config.seed, allow_foreign=admitted)
    if begun is not None:
        for store in stored.stores:
            begun.check_store(store, allow_foreign=admitted)
    stores = (*stored.stores, center_on) if center_on else stored.stores
    reference = _named_tower(config, begun, stores) if config.image else image_reference(stores)
    if ranks.is_first:
        _say_what_is_trusted(stores, begun.reference if begun and not config.image else reference)
    return corpus, ImageSource(
        reference=reference,
        center=stored.image_center,
        name=stored.name,
        contents=f"{reference.identity} {stored.checksums()}",
        stored=stored,
    )


def from_pairs(config: TrainConfig, begun: LiT | None, ranks: Ranks) -> tuple[Corpus, ImageSource]:
    """The rows of ``--pairs``, and their pixels.

    Args:
        config: the run's settings.
        begun: the model of ``--from``, which brings its image tower.
        ranks: among whom the work is shared.
    """
    if begun is not None and config.image:
        raise InputError(f"--from {config.from_run} brings its image tower; leave out --image {config.image}")
    if begun is not None and config.locking[0] == "u":
        raise InputError(f"--from {config.from_run} brings a trained image tower: --locking U{config.locking[1]}")
    if begun is not None and (config.center == "none" or config.image_pooling != "own"):
        raise InputError(f"--from {config.from_run} brings its centre and pooling; leave out --center, --image-pooling")
    tower = begun.image_tower if begun else _image_tower(config)
    fields = tuple(name.strip() for name in config.texts.split(",") if name.strip())
    source = open_pairs(config.pairs, texts=fields, image_field=config.image_field or None)
    index = index_images(source, spill=spill_of(config, ranks))
    if index.skipped and ranks.is_first:
        first = index.skipped[0]
        log(
            f"skipped {len(index.skipped):,} of {config.pairs}, the first {first.key} in {first.source}: {first.reason}"
        )
    corpus = number_texts(index.texts, np.ones(len(index.texts)))

    def pixels(augment: Augment, *, flip: bool) -> PixelImages:
        return PixelImages(
            index=index,
            preprocess=tower.preprocess,
            augment=augment,
            flip=flip,
            seed=config.seed,
            workers=config.workers,
        )

    reference = ImageReference.of(tower)
    center = torch.zeros(tower.dim)
    if config.center_on:
        on = load_images([StoreChoice(path=Path(config.center_on))])
        reference.check(image_reference(on.stores).identity, config.center_on)
        center = on.image_center
    elif begun is not None:
        center = begun.center.cpu()
    elif not config.trains_image and config.center == "mean":
        center = _mean(tower, pixels("none", flip=False), ranks)
    return corpus, ImageSource(
        reference=reference,
        center=center,
        name=index.name,
        contents=f"{tower.identity} {index.fingerprint}",
        pixels=pixels(config.augment, flip=config.flip),
        tower=tower,
    )


def _named_tower(config: TrainConfig, begun: LiT | None, stores: Sequence[EmbeddingStore]) -> ImageReference:
    """The tower of which ``--image`` says that foreign stores are."""
    if begun is not None and begun.reference.identity is not None:
        raise InputError(f"--from {config.from_run} brings its image tower; leave out --image {config.image}")
    tower = _image_tower(config)
    reference = ImageReference.of(tower)
    for store in stores:
        if store.dim != tower.dim:
            raise MismatchError(
                f"{store.path} holds {store.dim}-d embeddings and {config.image} gives {tower.dim}-d ones"
            )
        reference.check(store.identity, str(store.path), allow_foreign=True)
    return reference


def _say_what_is_trusted(stores: Sequence[EmbeddingStore], reference: ImageReference) -> None:
    """Say which stores are taken to be of which tower, though nothing shows it."""
    unproved = [str(store.path) for store in stores if store.identity is None or reference.identity is None]
    if unproved:
        tower = "one image tower, which the run will not know" if reference.identity is None else reference.spec
        log(f"taken on trust to be of {tower}, as only their width was checked: {', '.join(unproved)}")


def _image_tower(config: TrainConfig) -> ImageTower:
    return load_image_tower(
        config.image,
        pooling=config.image_pooling,
        device=config.device,
        precision=config.precision,
        from_scratch=config.locking[0] == "u",
    )


def _mean(tower: ImageTower, pixels: PixelImages, ranks: Ranks) -> Float[Tensor, " image_dim"]:
    """The mean embedding of all images, each rank running its share; kept in littune's cache."""
    about = f"{tower.identity} {tower.precision} {pixels.index.fingerprint}"
    path = littune_cache() / "centers" / f"{hashlib.sha256(about.encode()).hexdigest()[:32]}.npy"
    # The first rank's word counts: a file may come between one rank's look and another's.
    if not ranks.sum(torch.tensor(float(ranks.is_first and path.is_file()))):
        count = len(pixels.index)
        if ranks.is_first:
            log(f"centring on the mean of {count:,} images takes a run of the image tower over them; a store has it")
        mean = _sum(tower, pixels, np.arange(count)[ranks.share(count)], ranks) / count
        if ranks.is_first:
            write_atomic(path, lambda file: np.save(file, mean.float().numpy()))
        ranks.wait()
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _sum(tower: ImageTower, pixels: PixelImages, numbers: Indices, ranks: Ranks) -> Float64[Tensor, " image_dim"]:
    """The sum of the embeddings of all ranks' ``numbers``."""
    rows = live_rows(tower, pixels)
    total = torch.zeros(tower.dim, dtype=torch.float64)
    with track("centring", total=len(numbers), unit="images", quiet=not ranks.is_first) as advance:
        for start in range(0, len(numbers), _BLOCK):
            block = numbers[start : start + _BLOCK]
            total += rows(block, 0).double().sum(dim=0)
            advance(len(block))
    return ranks.sum(total)
