"""What a run is made of before its first step: rows, towers with what is locked locked, and an optimiser."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from littune.base.distributed import Ranks
from littune.base.errors import InputError
from littune.base.files import littune_cache, write_atomic
from littune.base.progress import log
from littune.config import BIAS, TEMPERATURE, TrainConfig
from littune.model.lit import LiT
from littune.store.store import is_store
from littune.towers.image.trained import TrainedImageTower
from littune.towers.precision import usable_device, wants_bfloat16
from littune.towers.text.lora import add_adapters
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tower import TextTower, Tokens
from littune.tuning.data.batches import Batches
from littune.tuning.data.corpus import Corpus
from littune.tuning.data.sides import Table, TunedImages, TunedTexts, graph_budget, live_rows
from littune.tuning.data.sources import ImageSource, from_pairs, from_stores
from littune.tuning.optim.groups import Rule, apply_rules, parameter_groups
from littune.tuning.optim.optimizers import make_optimizer
from littune.tuning.step import Side

# New heads learn beside a pre-trained tower, which bears only small steps; so does one beside a new tower.
HEAD_LR_FACTOR = 20.0
PRETRAINED_LR_FACTOR = 0.1


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


def set_up(config: TrainConfig, ranks: Ranks) -> Setup:
    """Open, load and lock.

    Raises:
        InputError: a store, pairs, a tower or a setting cannot be used.
        MismatchError: the stores, or they and the run to start from, do not go together.
    """
    device = usable_device(config.device)
    rules = [Rule.parse(rule) for rule in config.lr_rules]
    _check(config, ranks)
    torch.manual_seed(config.seed)
    begun = LiT.load(config.from_run, device=config.device, precision=config.precision) if config.from_run else None
    corpus, images = from_stores(config, begun, ranks) if config.store else from_pairs(config, begun, ranks)
    torch.manual_seed(config.seed)  # once more: heads are drawn alike, whatever an image tower drew before them
    model = _begun(config, begun, images) if begun else _new_model(config, corpus, images)
    locked_text = _locked_text(model, config)
    _lock(model, config, images)
    model.to(device)
    tokens = _tokens(model, corpus)
    factor = 1.0 if config.locking == "LL" or config.trains_new else HEAD_LR_FACTOR
    factors: dict[nn.Module, float] = {head: factor for head in (model.text_head, model.image_head) if head is not None}
    if config.trains_new:
        towers = zip(config.locking, (model.image, None if config.lora else model.text), strict=True)
        factors |= {tower: PRETRAINED_LR_FACTOR for letter, tower in towers if letter == "U" and tower is not None}
    apply_rules(model, rules)
    if model.image is not None:
        model.image.lock_statistics()
    groups = parameter_groups(model, weight_decay=config.decay, lr_factors=factors, rules=rules)
    if not groups:
        raise InputError("lr_rules lock every parameter: nothing is left to train")
    batches = Batches(
        row_image=corpus.row_image,
        row_text=corpus.row_text,
        row_weight=corpus.row_weight,
        batch_size=config.batch_size,
        seed=config.seed,
        captions=config.captions,
    )
    if 2 * config.loss_parts > batches.batch_size:
        raise InputError(f"loss_parts = {config.loss_parts} is too many for a batch of {batches.batch_size}")
    return Setup(
        corpus=corpus,
        batches=batches,
        model=model,
        images=_image_side(config, model, images, device),
        texts=_text_side(config, model, tokens, device, ranks),
        tokens=tokens,
        optimizer=make_optimizer(config.optimizer, groups, lr=config.learning_rate),
        name_image=images.name,
        about=_digest(images.contents, corpus.digest(), str(model.center.tolist()), locked_text),
    )


def _check(config: TrainConfig, ranks: Ranks) -> None:
    """What can be checked before anything is loaded."""
    if not config.from_run:
        _check_text(config)
    if config.loss_parts > 1 and config.loss_parts % ranks.size:
        raise InputError(f"loss_parts = {config.loss_parts} is no multiple of the {ranks.size} processes")
    stores = [val for val in config.val if is_store(val)]
    if config.trains_image and stores:
        raise InputError(
            f"val: {stores[0]} is a store, of an image tower that this run changes: name its pairs instead"
        )


def _locked_text(model: LiT, config: TrainConfig) -> str:
    """The identity of a text tower whose weights are in no checkpoint."""
    return "" if config.trains_text and not config.lora else model.text.identity


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _new_model(config: TrainConfig, corpus: Corpus, images: ImageSource) -> LiT:
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


def _begun(config: TrainConfig, model: LiT, images: ImageSource) -> LiT:
    """The model of ``--from``."""
    named = f"--from {config.from_run}"
    if config.text and config.text != model.text.spec:
        raise InputError(f"{named} brings {model.text.spec}; leave out --text {config.text}")
    if config.max_tokens not in (None, model.text.max_tokens):
        raise InputError(f"{named} was trained with --max-tokens {model.text.max_tokens}; leave it out")
    if config.temperature is not None or config.bias is not None or config.pooling != "auto":
        raise InputError(f"{named} brings its temperature, bias and pooling; leave them out")
    if config.heads != "text" or config.out_dim is not None:
        raise InputError(f"{named} brings its heads; leave out --heads and --out-dim")
    if (model.bias is not None) != (config.loss == "sigmoid"):
        raise InputError(f"{named} was trained with the other loss than --loss {config.loss}; use the same")
    if config.locking[1] == "u" and not model.text.spec.startswith("scratch"):
        raise InputError(f"{named} brings {model.text.spec}, which is pre-trained: --locking {config.locking[0]}U")
    # Class directions alone say nothing of where images lie.
    only_prototypes = images.stored is not None and all(s.kind == "prototypes" for s in images.stored.stores)
    if config.center_on or not only_prototypes:
        model.center = images.center
    # What the run knows of its tower is kept, the weights that it may carry above all; but prototypes know no pixels.
    if images.reference.knowledge > model.reference.knowledge:
        model.reference = images.reference
    return model


def _check_text(config: TrainConfig) -> None:
    from_scratch = config.text.partition(":")[0] == "scratch"
    if from_scratch != (config.locking[1] == "u"):
        letters = config.locking[0]
        fix = f"--locking {letters}u goes with --text scratch:…" if from_scratch else "it needs --text scratch:S"
        raise InputError(f"the text tower {config.text} does not go with --locking {config.locking}: {fix}")


def _text_tower(config: TrainConfig, corpus: Corpus) -> TextTower:
    return load_text_tower(
        config.text,
        max_tokens=config.max_tokens,
        pooling=None if config.pooling == "auto" else config.pooling,
        texts=corpus.texts,
    )


def _lock(model: LiT, config: TrainConfig, images: ImageSource) -> None:
    """Locking is data: what is locked needs no gradient."""
    model.text.requires_grad_(config.trains_text)
    if config.lora:
        add_adapters(model.text, rank=config.lora)
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


def _image_side(config: TrainConfig, model: LiT, images: ImageSource, device: torch.device) -> Side:
    if images.stored is not None:
        return Table(images.stored.rows)
    assert images.pixels is not None and images.tower is not None
    bfloat16 = wants_bfloat16(device, config.precision)
    if model.image is not None:
        return TunedImages.fitted(
            model.image,
            images.pixels,
            center=model.center,
            device=device,
            bfloat16=bfloat16,
            budget=_budget(config, device),
        )
    rows, center = live_rows(images.tower, images.pixels), model.center.cpu()
    return Table(lambda numbers, step: rows(numbers, step) - center)


def _text_side(config: TrainConfig, model: LiT, tokens: Tokens, device: torch.device, ranks: Ranks) -> Side:
    """The tower, or, where it is locked, a table of its outputs."""
    if config.trains_text:
        bfloat16 = wants_bfloat16(device, config.precision)
        budget = _budget(config, device)
        return TunedTexts.fitted(model.text, tokens, device=device, bfloat16=bfloat16, budget=budget)
    model.remember_texts()
    outputs = _locked_outputs(model.text, tokens, config, ranks).to(device)
    return Table(lambda numbers, step: outputs[torch.from_numpy(numbers)])


def _budget(config: TrainConfig, device: torch.device) -> int:
    """What the graph of one of the trained towers may take."""
    return graph_budget(device) // (config.trains_image + config.trains_text)


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
