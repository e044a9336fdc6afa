"""Where a run's rows and images come from: stores of a locked tower's embeddings, or pairs, seen by a tower live."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from littune.base.distributed import Ranks
from littune.base.errors import InputError
from littune.base.progress import log
from littune.config import Augment, StoreChoice, TrainConfig
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.pairs.images import index_images
from littune.pairs.open import open_pairs
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
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


def from_stores(config: TrainConfig, begun: LiT | None) -> tuple[Corpus, ImageSource]:
    """The rows of ``--store``, and their embeddings.

    Args:
        config: the run's settings.
        begun: the model of ``--from``, which must be of the same image tower.
    """
    choices = [StoreChoice.parse(spec) for spec in config.store]
    center_on = open_complete(Path(config.center_on)) if config.center_on else None
    corpus = load_corpus(choices)
    stored = load_images(choices, center=config.center, center_on=center_on, seed=config.seed)
    if begun is not None:
        for store in stored.stores:
            begun.check_store(store, allow_foreign=True)
    keys = [f"{key} in {store.path}" for store in stored.stores for key in store.keys()]  # noqa: SIM118 - no dict
    reference = image_reference(stored.stores)
    return corpus, ImageSource(
        reference=reference,
        center=stored.image_center,
        name=keys.__getitem__,
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

    center = torch.zeros(tower.dim)
    if config.center_on:
        center = load_images([StoreChoice(path=Path(config.center_on))], center="mean").image_center
    elif begun is not None and not begun.image:
        center = begun.center.cpu()
    elif not config.trains_image and config.center == "mean":
        center = _mean(tower, pixels("none", flip=False), len(index.texts), ranks)
    reference = ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity)
    return corpus, ImageSource(
        reference=reference,
        center=center,
        name=index.name,
        contents=f"{tower.identity} {index.fingerprint}",
        pixels=pixels(config.augment, flip=config.flip),
        tower=tower,
    )


def _image_tower(config: TrainConfig) -> ImageTower:
    return load_image_tower(
        config.image,
        pooling=config.image_pooling,
        device=config.device,
        precision=config.precision,
        from_scratch=config.locking[0] == "u",
    )


def _mean(tower: ImageTower, pixels: PixelImages, count: int, ranks: Ranks) -> Float[Tensor, " image_dim"]:
    """The mean embedding of all images, each rank running its share; a store has it at hand."""
    log(f"centring on the mean of {count:,} images, which takes one run of the image tower over them")
    rows = live_rows(tower, pixels)
    total = torch.zeros(tower.dim, dtype=torch.float64)
    mine = np.arange(count)[ranks.share(count)]
    for start in range(0, len(mine), 256):
        total += rows(mine[start : start + 256], 0).double().sum(dim=0)
    return (ranks.sum(total) / count).float()
