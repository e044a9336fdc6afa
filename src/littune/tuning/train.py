"""The training loop, from top to bottom: a store's rows tune a text tower (sections 3 and 4, App. C and D).

The image tower never runs here: what it says of the training images lies in the stores. A locked text tower
is a table too, of which only the head is trained.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from littune.base.errors import InputError
from littune.base.files import littune_cache, write_atomic
from littune.base.progress import log, track
from littune.config import MAX_TOKENS, TEMPERATURE, Locking, StoreChoice, TrainConfig
from littune.model.lit import LiT
from littune.towers.precision import usable_device, wants_bfloat16
from littune.towers.text import TextTower, Tokens
from littune.towers.text_sources import load_text_tower
from littune.tuning.batches import Batch, Batches
from littune.tuning.checkpoint import (
    MetricsLog,
    load_checkpoint,
    open_run,
    read_metrics,
    remove_checkpoint,
    save_checkpoint,
)
from littune.tuning.corpus import Corpus, image_reference, load_corpus, open_complete
from littune.tuning.curves import draw_curves
from littune.tuning.losses import softmax_loss
from littune.tuning.optim import adamw, parameter_groups, schedule, set_learning_rate
from littune.tuning.step import LockedTexts, Texts, TunedTexts, contrastive_step

# A new head learns beside a pre-trained text tower, which bears only small steps.
HEAD_LR_FACTORS: dict[Locking, float] = {"LL": 1.0, "LU": 20.0, "Lu": 1.0}

# A killed run goes on from no further back than this.
CHECKPOINT_SECONDS = 20.0

# Scores a model on whatever the caller likes; names → fractions.
Probe = Callable[[LiT], Mapping[str, float]]


def fit(config: TrainConfig, *, probe: Probe | None = None) -> LiT:
    """Train, or go on training, or load what is trained already.

    Args:
        config: what the run is made of.
        probe: scores the model before the first step and after each epoch; its numbers go into ``metrics.jsonl``.

    Raises:
        InputError: a store, tower or the run folder cannot be used.
        MismatchError: the stores do not go together, or the folder was begun with other settings.
        LittuneError: the loss is not finite; the last checkpoint is kept.
    """
    with open_run(config) as finished:
        if finished:
            log(f"{config.out} is finished: nothing to do")
            return LiT.load(config.out, device=config.device, precision=config.precision)
        return _fit(config, probe)


def _fit(config: TrainConfig, probe: Probe | None) -> LiT:
    # What there is to learn from.
    center_on = open_complete(Path(config.center_on)) if config.center_on else None
    choices = [StoreChoice.parse(spec) for spec in config.store]
    corpus = load_corpus(choices, center=config.center, center_on=center_on)
    batches = Batches(
        row_image=corpus.row_image,
        row_text=corpus.row_text,
        row_weight=corpus.row_weight,
        batch_size=config.batch_size,
        seed=config.seed,
    )

    # What learns.
    torch.manual_seed(config.seed)
    model = build_model(config, corpus)
    texts = _texts(config, corpus, model)
    groups = parameter_groups(
        model, weight_decay=config.weight_decay, lr_factors={model.head: HEAD_LR_FACTORS[config.locking]}
    )
    optimizer = adamw(groups, lr=config.learning_rate)
    total = batches.num_steps(config.epochs)
    warmup = round(config.warmup * total)
    per_epoch = batches.num_steps(1)

    # Where it stopped, if it did.
    if config.bundle:
        _ = model.image_tower  # what cannot be loaded shows before anything is spent
    start = load_checkpoint(config.out, model=model, optimizer=optimizer)
    metrics = MetricsLog(config.out, step=start)
    if start:
        log(f"{config.out} goes on from step {start} of {total}")

    # The loop.
    with metrics, track("training", total=total * batches.batch_size, unit="pairs") as advance:
        advance(start * batches.batch_size)
        saved = time.monotonic()
        if probe is not None and not start:
            metrics.write({"step": 0, **probe(model)})
        for step in range(start, total):
            batch = batches.at(step)
            lr = config.learning_rate * schedule(step, total=total, warmup=warmup)
            set_learning_rate(optimizer, lr)
            result = contrastive_step(
                texts, batch.texts, _loss(model, corpus, batch), optimizer, max_norm=config.grad_clip
            )
            done = step + 1
            metrics.write(
                {
                    "step": done,
                    "epoch": round(batches.epoch_of(done), 4),
                    "loss": result.loss,
                    "gradient_norm": result.gradient_norm,
                    "lr": lr,
                    "temperature": model.logit_scale,
                }
            )
            if probe is not None and (done % per_epoch == 0 or done == total):
                metrics.write({"step": done, **probe(model)})
            if done < total and time.monotonic() - saved > CHECKPOINT_SECONDS:
                metrics.flush()
                save_checkpoint(config.out, step=done, model=model, optimizer=optimizer)
                saved = time.monotonic()
            advance(batches.batch_size, f"loss {result.loss:.3f}")

    # What is left: the model, its curves, and no checkpoint.
    draw_curves(read_metrics(config.out), config.out / "curves.png")
    model.eval().save(config.out, bundle=config.bundle)
    remove_checkpoint(config.out)
    model.forget_texts()
    log(f"trained {total} steps on {len(corpus.row_image):,} pairs, loss {result.loss:.3f}, into {config.out}")
    return model


def build_model(config: TrainConfig, corpus: Corpus) -> LiT:
    """The model before its first step, with what is locked locked.

    Raises:
        InputError: the text tower does not go with the locking, or the device is not there.
        MismatchError: the run to start from reads another image tower.
    """
    model = _from_run(config, corpus) if config.from_run else _new_model(config, corpus)
    model.text.requires_grad_(config.locking != "LL")
    return model.eval()


def _new_model(config: TrainConfig, corpus: Corpus) -> LiT:
    model = LiT(
        text=_text_tower(config, corpus),
        image=image_reference(corpus.stores),
        center=corpus.image_center,
        temperature=TEMPERATURE if config.temperature is None else config.temperature,
    ).to(usable_device(config.device))
    model.precision = config.precision
    return model


def _from_run(config: TrainConfig, corpus: Corpus) -> LiT:
    model = LiT.load(config.from_run, device=config.device, precision=config.precision)
    for store in corpus.stores:
        model.check_store(store, allow_foreign=True)
    if config.text and config.text != model.text.spec:
        raise InputError(f"--from {config.from_run} brings {model.text.spec}; leave out --text {config.text}")
    if config.max_tokens not in (None, model.text.max_tokens):
        raise InputError(
            f"--from {config.from_run} was trained with --max-tokens {model.text.max_tokens}; leave it out"
        )
    if config.temperature is not None or config.pooling != "auto":
        raise InputError(f"--from {config.from_run} brings its temperature and pooling; leave them out")
    if config.locking == "Lu" and not model.text.spec.startswith("scratch"):
        raise InputError(f"--from {config.from_run} brings {model.text.spec}, which is pre-trained: --locking LU")
    # Class directions alone say nothing of where images lie.
    if config.center_on or any(store.kind != "prototypes" for store in corpus.stores):
        model.center = corpus.image_center.to(model.center.device)
        model.image = image_reference(corpus.stores)
    return model


def _text_tower(config: TrainConfig, corpus: Corpus) -> TextTower:
    from_scratch = config.text.partition(":")[0] == "scratch"
    if from_scratch != (config.locking == "Lu"):
        fix = "--locking Lu goes with --text scratch:…" if from_scratch else "--locking Lu needs --text scratch:S"
        raise InputError(f"the text tower {config.text} does not go with --locking {config.locking}: {fix}")
    return load_text_tower(
        config.text,
        max_tokens=MAX_TOKENS if config.max_tokens is None else config.max_tokens,
        pooling=None if config.pooling == "auto" else config.pooling,
        texts=corpus.texts,
    )


def _texts(config: TrainConfig, corpus: Corpus, model: LiT) -> Texts:
    """What the loop asks for text outputs: the tower, or, where it is locked, a table of its outputs."""
    tokens = model.text.tokenize(corpus.texts)
    if tokens.num_truncated:
        share = tokens.num_truncated / len(corpus.texts)
        log(f"{share:.1%} of {len(corpus.texts)} distinct texts are cut to {model.text.max_tokens} tokens")
    if config.locking == "LL":
        model.remember_texts()
        return LockedTexts(_locked_outputs(model.text, tokens, config).to(config.device))
    return TunedTexts(
        tower=model.text,
        tokens=tokens,
        device=torch.device(config.device),
        bfloat16=wants_bfloat16(config.device, config.precision),
    )


def _locked_outputs(tower: TextTower, tokens: Tokens, config: TrainConfig) -> Float[Tensor, "n dim"]:
    """A locked tower's outputs, computed once for all runs on the same texts and kept in littune's cache."""
    bfloat16 = wants_bfloat16(config.device, config.precision)
    digest = hashlib.sha256(f"{tower.identity} {bfloat16}".encode())
    for part in (tokens.ids, tokens.lengths):
        digest.update(part.numpy().tobytes())
    path = littune_cache() / "text_emb" / f"{digest.hexdigest()[:32]}.npy"
    if not path.is_file():
        outputs = tower.embed(tokens, precision=config.precision, progress="embedding texts")
        write_atomic(path, lambda file: np.save(file, outputs.numpy()))
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _loss(model: LiT, corpus: Corpus, batch: Batch) -> Callable[[Float[Tensor, "t dim"]], Float[Tensor, ""]]:
    images = corpus.images(batch.images).to(model.center.device)
    positives = batch.positives.to(model.center.device)

    def loss(pooled: Float[Tensor, "t dim"]) -> Float[Tensor, ""]:
        return softmax_loss(images, model.project_texts(pooled), positives, model.log_temperature)

    return loss
