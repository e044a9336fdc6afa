"""What a run is made of before its first step: rows, towers with what is locked locked, and an optimiser."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from littune.base.distributed import Ranks
from littune.base.errors import InputError
from littune.base.files import littune_cache, write_atomic
from littune.base.progress import log
from littune.config import BIAS, MAX_TOKENS, TEMPERATURE, Augment, StoreChoice, TrainConfig
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.pairs.images import index_images
from littune.pairs.open import open_pairs
from littune.towers.image import ImageTower
from littune.towers.image_sources import load_image_tower
from littune.towers.image_trained import TrainedImageTower
from littune.towers.precision import usable_device, wants_bfloat16
from littune.towers.text import TextTower, Tokens
from littune.towers.text_sources import load_text_tower
from littune.tuning.batches import Batches
from littune.tuning.corpus import (
    Corpus,
    StoredImages,
    image_reference,
    load_corpus,
    load_images,
    number_texts,
    open_complete,
)
from littune.tuning.groups import Rule, apply_rules, parameter_groups
from littune.tuning.optim import make_optimizer
from littune.tuning.pixels import PixelImages
from littune.tuning.sides import Table, TunedImages, TunedTexts, live_rows
from littune.tuning.step import Side

# New heads learn beside a pre-trained tower, which bears only small steps.
HEAD_LR_FACTOR = 20.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """A run before its first step.

    Attributes:
        corpus: the rows.
        batches: the global batches.
        model: what is trained; what is locked has no gradient.
        images: what gives the images' outputs, centred.
        texts: what gives the texts' outputs.
        tokens: of every text.
        optimizer: over all that is trained.
        name_image: the words for an image's number in messages.
        about: a digest of the rows and the towers.
    """

    corpus: Corpus
    batches: Batches
    model: LiT
    images: Side
    texts: Side
    tokens: Tokens
    optimizer: torch.optim.Optimizer
    name_image: Callable[[int], str]
    about: str


@dataclass(frozen=True, kw_only=True)
class _Images:
    """The image side before the model is built: how rows are looked up, or which tower is trained on which pixels."""

    reference: ImageReference
    center: Float[Tensor, " image_dim"]
    name: Callable[[int], str]
    contents: str
    stored: StoredImages | None = None
    pixels: PixelImages | None = None
    tower: ImageTower | None = None


def set_up(config: TrainConfig, ranks: Ranks) -> Setup:
    """Open, load and lock.

    Raises:
        InputError: a store, pairs, a tower or a setting cannot be used.
        MismatchError: the stores, or they and the run to start from, do not go together.
    """
    device = usable_device(config.device)
    torch.manual_seed(config.seed)
    begun = LiT.load(config.from_run, device=config.device, precision=config.precision) if config.from_run else None
    corpus, images = _from_stores(config, begun) if config.store else _from_pairs(config, begun, ranks)
    torch.manual_seed(config.seed)  # once more: heads are drawn alike, whatever an image tower drew before them
    model = _begun(config, begun, images) if begun else _new_model(config, corpus, images)
    _lock(model, config, images)
    model.to(device)
    tokens = _tokens(model, corpus)
    factor = 1.0 if config.locking == "LL" or "u" in config.locking else HEAD_LR_FACTOR
    heads: dict[nn.Module, float] = {head: factor for head in (model.text_head, model.image_head) if head is not None}
    rules = [Rule.parse(rule) for rule in config.lr_rules]
    apply_rules(model, rules)
    groups = parameter_groups(model, weight_decay=config.decay, lr_factors=heads, rules=rules)
    if not groups:
        raise InputError("lr_rules lock every parameter: nothing is left to train")
    return Setup(
        corpus=corpus,
        batches=Batches(
            row_image=corpus.row_image,
            row_text=corpus.row_text,
            row_weight=corpus.row_weight,
            batch_size=config.batch_size,
            seed=config.seed,
            captions=config.captions,
        ),
        model=model,
        images=_image_side(config, model, images, device),
        texts=_text_side(config, model, tokens, device, ranks),
        tokens=tokens,
        optimizer=make_optimizer(config.optimizer, groups, lr=config.learning_rate),
        name_image=images.name,
        about=hashlib.sha256(f"{images.contents} {corpus.digest()}".encode()).hexdigest(),
    )


def spill_of(config: TrainConfig, ranks: Ranks) -> Path:
    """Where images that lie in no file of their own are copied to while the run lasts."""
    return config.out / f".images.{ranks.rank}.bin"


def _from_stores(config: TrainConfig, begun: LiT | None) -> tuple[Corpus, _Images]:
    choices = [StoreChoice.parse(spec) for spec in config.store]
    center_on = open_complete(Path(config.center_on)) if config.center_on else None
    corpus = load_corpus(choices)
    stored = load_images(choices, center=config.center, center_on=center_on, seed=config.seed)
    if begun is not None:
        for store in stored.stores:
            begun.check_store(store, allow_foreign=True)
    keys = [f"{key} in {store.path}" for store in stored.stores for key in store.keys()]  # noqa: SIM118 - no dict
    reference = image_reference(stored.stores)
    return corpus, _Images(
        reference=reference,
        center=stored.image_center,
        name=keys.__getitem__,
        contents=f"{reference.identity} {stored.checksums()}",
        stored=stored,
    )


def _from_pairs(config: TrainConfig, begun: LiT | None, ranks: Ranks) -> tuple[Corpus, _Images]:
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
    return corpus, _Images(
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


def _new_model(config: TrainConfig, corpus: Corpus, images: _Images) -> LiT:
    if config.loss == "sigmoid":
        bias = BIAS if config.bias is None else config.bias
    model = LiT(
        text=_text_tower(config, corpus),
        reference=images.reference,
        center=images.center,
        temperature=TEMPERATURE if config.temperature is None else config.temperature,
        bias=bias if config.loss == "sigmoid" else None,
        heads=config.heads,
        out_dim=config.out_dim,
    )
    model.precision = config.precision
    return model


def _begun(config: TrainConfig, model: LiT, images: _Images) -> LiT:
    """The model of ``--from``."""
    named = f"--from {config.from_run}"
    if config.text and config.text != model.text.spec:
        raise InputError(f"{named} brings {model.text.spec}; leave out --text {config.text}")
    if config.max_tokens not in (None, model.text.max_tokens):
        raise InputError(f"{named} was trained with --max-tokens {model.text.max_tokens}; leave it out")
    if config.temperature is not None or config.pooling != "auto":
        raise InputError(f"{named} brings its temperature and pooling; leave them out")
    if config.heads != "text" or config.out_dim is not None:
        raise InputError(f"{named} brings its heads; leave out --heads and --out-dim")
    if (model.bias is not None) != (config.loss == "sigmoid"):
        raise InputError(f"{named} was trained with the other loss than --loss {config.loss}; use the same")
    if config.locking[1] == "u" and not model.text.spec.startswith("scratch"):
        raise InputError(f"{named} brings {model.text.spec}, which is pre-trained: --locking {config.locking[0]}U")
    # Class directions alone say nothing of where images lie.
    only_prototypes = images.stored is not None and all(s.kind == "prototypes" for s in images.stored.stores)
    if config.trains_image or config.center_on or not only_prototypes:
        model.center = images.center
        model.reference = images.reference
    return model


def _text_tower(config: TrainConfig, corpus: Corpus) -> TextTower:
    from_scratch = config.text.partition(":")[0] == "scratch"
    if from_scratch != (config.locking[1] == "u"):
        letters = config.locking[0]
        fix = f"--locking {letters}u goes with --text scratch:…" if from_scratch else "it needs --text scratch:S"
        raise InputError(f"the text tower {config.text} does not go with --locking {config.locking}: {fix}")
    return load_text_tower(
        config.text,
        max_tokens=MAX_TOKENS if config.max_tokens is None else config.max_tokens,
        pooling=None if config.pooling == "auto" else config.pooling,
        texts=corpus.texts,
    )


def _lock(model: LiT, config: TrainConfig, images: _Images) -> None:
    """Locking is data: what is locked needs no gradient."""
    model.text.requires_grad_(config.trains_text)
    if config.trains_image:
        assert images.tower is not None
        from_scratch = config.locking[0] == "u"
        # In training mode, batch norms take the statistics of a micro-batch; those of pre-training stay as they are.
        model.image = TrainedImageTower(images.tower, from_scratch=from_scratch).train(from_scratch)


def _tokens(model: LiT, corpus: Corpus) -> Tokens:
    tokens = model.text.tokenize(corpus.texts)
    if tokens.num_truncated:
        share = tokens.num_truncated / len(corpus.texts)
        log(f"{share:.1%} of {len(corpus.texts)} distinct texts are cut to {model.text.max_tokens} tokens")
    return tokens


def _image_side(config: TrainConfig, model: LiT, images: _Images, device: torch.device) -> Side:
    if images.stored is not None:
        return Table(images.stored.rows)
    assert images.pixels is not None and images.tower is not None
    bfloat16 = wants_bfloat16(device, config.precision)
    if model.image is not None:
        return TunedImages.fitted(model.image, images.pixels, device=device, bfloat16=bfloat16)
    rows, center = live_rows(images.tower, images.pixels), model.center.cpu()
    return Table(lambda numbers, step: rows(numbers, step) - center)


def _text_side(config: TrainConfig, model: LiT, tokens: Tokens, device: torch.device, ranks: Ranks) -> Side:
    """The tower, or, where it is locked, a table of its outputs."""
    if config.trains_text:
        bfloat16 = wants_bfloat16(device, config.precision)
        return TunedTexts.fitted(model.text, tokens, device=device, bfloat16=bfloat16)
    model.remember_texts()
    outputs = _locked_outputs(model.text, tokens, config, ranks).to(device)
    return Table(lambda numbers, step: outputs[torch.from_numpy(numbers)])


def _locked_outputs(tower: TextTower, tokens: Tokens, config: TrainConfig, ranks: Ranks) -> Float[Tensor, "n text_dim"]:
    """A locked tower's outputs, computed once for all runs on the same texts and kept in littune's cache."""
    bfloat16 = wants_bfloat16(config.device, config.precision)
    digest = hashlib.sha256(f"{tower.identity} {bfloat16}".encode())
    for part in (tokens.ids, tokens.lengths):
        digest.update(part.numpy().tobytes())
    path = littune_cache() / "text_emb" / f"{digest.hexdigest()[:32]}.npy"
    if ranks.is_first and not path.is_file():
        outputs = tower.embed(tokens, precision=config.precision, progress="embedding texts")
        write_atomic(path, lambda file: np.save(file, outputs.numpy()))
    ranks.wait()
    return torch.from_numpy(np.load(path, allow_pickle=False))
