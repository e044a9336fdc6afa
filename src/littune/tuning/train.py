"""The training loop, from top to bottom (sections 3 and 4, App. C, D, F and H).

Where the image tower is locked it never runs here: what it says of the training images lies in the stores. A locked
text tower is a table too, of which only the head is trained.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext

import numpy as np
import torch

from littune.base.distributed import Ranks, joined
from littune.base.errors import LittuneError
from littune.base.memory import keep_freed_memory, peak_memory
from littune.base.progress import log, track
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.model.run_files import is_run
from littune.towers.text.lora import merge_adapters
from littune.tuning.data.sources import spill_of
from littune.tuning.loss.objective import objective_of
from littune.tuning.optim.optimizers import set_learning_rate
from littune.tuning.run.checkpoint import Best, Checkpoints, MetricsLog, open_run, read_metrics
from littune.tuning.run.cost import Cost
from littune.tuning.run.curves import draw_curves
from littune.tuning.run.interrupt import stop_requests
from littune.tuning.run.probe import ProbeBatch
from littune.tuning.run.tensorboard import TensorBoard
from littune.tuning.setup import Setup, set_up
from littune.tuning.step import DivergedError, StepResult, contrastive_step

# A killed run goes on from no further back than this, or than saving takes, so many times over.
CHECKPOINT_SECONDS = 20.0
SAVING_TIMES = 20

# The recall on the probe batch is taken so many times in a run, but only once for so many pairs, of which it then
# takes a few percent of the time.
_NUM_PROBES = 20
_PAIRS_PER_PROBE = 5_000

# Scores a model on whatever the caller likes; names → fractions.
Probe = Callable[[LiT], Mapping[str, float]]


def fit(config: TrainConfig, *, probe: Probe | None = None) -> LiT:
    """Train, or go on training, or load what is trained already; under ``torchrun``, as one of its processes.

    Args:
        config: what the run is made of.
        probe: scores the model before the first step and after each epoch; its numbers go into ``metrics.jsonl``.

    Raises:
        InputError: a store, pairs, a tower or the run folder cannot be used.
        MismatchError: the stores do not go together, or the folder was begun with other settings or other data.
        LittuneError: the loss or a gradient is not finite; the last checkpoint is kept.
        KeyboardInterrupt: Ctrl-C or SIGTERM; the state after the last whole step is saved.
    """
    keep_freed_memory()
    with joined(config.device) as ranks, open_run(config) if ranks.is_first else nullcontext():
        ranks.wait()
        if is_run(config.out):
            log(f"{config.out} is finished: nothing to do")
        else:
            try:
                _fit(config, probe, ranks)
            finally:
                spill_of(config, ranks).unlink(missing_ok=True)
            ranks.wait()
        return LiT.load(config.out, device=config.device, precision=config.precision)


def _fit(config: TrainConfig, probe: Probe | None, ranks: Ranks) -> None:
    # What learns, and from what.
    setup = set_up(config, ranks)
    model, batches, optimizer = setup.model, setup.batches, setup.optimizer
    text_lengths = setup.tokens.lengths.numpy()
    total = batches.num_steps(config.epochs)
    warmup = round(config.warmup * total)
    per_epoch = batches.num_steps(1)
    per_probe = max(1, total // _NUM_PROBES, _PAIRS_PER_PROBE // batches.batch_size)
    probe_batch = ProbeBatch.drawn(setup, seed=config.seed)

    # Where it stopped, if it did.
    if config.bundle and ranks.is_first:
        _ = model.image_tower  # what cannot be loaded shows before anything is spent
    states = Checkpoints(config.out, model=model, optimizer=optimizer, about=setup.about, keep=config.keep)
    start, best = states.load()
    if start and ranks.is_first:
        log(f"{config.out} goes on from step {start} of {total}")
    cost = Cost(config.out, step=start)

    # The loop.
    with (
        MetricsLog(config.out, step=start, quiet=not ranks.is_first) as metrics,
        TensorBoard(config.out if config.tensorboard and ranks.is_first else None, step=start) as tensorboard,
        stop_requests() as is_stop_requested,
        track("training", total=total * batches.batch_size, unit="pairs", quiet=not ranks.is_first) as advance,
    ):
        advance(start * batches.batch_size)
        saved, interval = time.monotonic(), CHECKPOINT_SECONDS

        def score(step: int) -> None:
            nonlocal best
            if probe is None or not ranks.is_first:
                return
            model.lock_image()
            scores = dict(probe(model))
            metrics.write({"step": step, **scores})
            tensorboard.write(step, scores)
            if config.select == "best" and (best is None or headline(scores) > best.score):
                best = Best(score=headline(scores), step=step)
                states.save_best()

        if not start:
            score(0)
        recall = float("nan")
        for step in range(start, total):
            images, texts, loss_of = objective_of(step, batches, model, config, text_lengths, ranks)
            lr = set_learning_rate(
                optimizer, lr=config.learning_rate, step=step, total=total, warmup=warmup, kind=config.schedule
            )
            result = _step(setup, config, images, texts, loss_of, step, ranks)
            done = step + 1
            record = {
                "step": done,
                "epoch": round(batches.epoch_of(done), 4),
                "loss": result.loss,
                "gradient_norm": result.gradient_norm,
                "lr": lr,
                "temperature": model.logit_scale,
            }
            if done % per_probe == 0 and ranks.is_first:
                recall = record["probe/recall@1"] = probe_batch.recall()
            metrics.write(record)
            tensorboard.write(done, record)
            if done % per_epoch == 0 or done == total:
                score(done)
            stopping = bool(ranks.max(torch.tensor(float(is_stop_requested()), device=model.center.device)))
            if done < total and (stopping or time.monotonic() - saved > interval) and ranks.is_first:
                began = time.monotonic()
                states.save(done, best)
                cost.save(pairs=done * batches.batch_size, processes=ranks.size)
                saved = time.monotonic()
                interval = max(CHECKPOINT_SECONDS, SAVING_TIMES * (saved - began))
            advance(batches.batch_size, _remark(result, model, recall))
            if stopping and done < total:
                if ranks.is_first:
                    log(f"stopped after step {done} of {total}, which is saved: the same command goes on")
                raise KeyboardInterrupt

    # What is left: the model, its curves, and no checkpoint.
    if ranks.is_first:
        if config.select == "best" and best is not None:
            states.take_best()
            log(f"the weights after step {best.step} scored best: {best.score:.1%}")
        cost.save(pairs=total * batches.batch_size, processes=ranks.size)
        draw_curves(read_metrics(config.out), config.out / "curves.png")
        if config.lora:
            merge_adapters(model.text)
        model.eval().save(config.out, bundle=config.bundle)
        states.remove()
        log(f"trained {total} steps on {len(setup.corpus.row_image):,} pairs, into {config.out}")


def headline(scores: Mapping[str, float]) -> float:
    """The mean over the val sets of what each is scored by first: text→image recall@1, or accuracy@1."""
    values = [value for name, value in scores.items() if name.endswith(("text_to_image/recall@1", "accuracy@1"))]
    return float(np.mean(values))


def _step(
    setup: Setup,
    config: TrainConfig,
    images: np.ndarray,
    texts: np.ndarray,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    step: int,
    ranks: Ranks,
) -> StepResult:
    sides = [(setup.images, images), (setup.texts, texts)]
    try:
        return contrastive_step(sides, loss_of, setup.optimizer, step=step, max_norm=config.grad_clip, ranks=ranks)
    except DivergedError as error:
        raise LittuneError(f"step {step + 1}: {error}{_rows(setup, images, texts, error)}") from error


def _rows(setup: Setup, images: np.ndarray, texts: np.ndarray, error: DivergedError) -> str:
    """Which rows are to blame, in words, where it can be told."""
    of_images, of_texts = error.positions
    names = [setup.name_image(int(number)) for number in images[of_images][:3]]
    names += [repr(setup.corpus.texts[number]) for number in texts[of_texts][:3]]
    count = len(of_images) + len(of_texts)
    return f" ({count} of its images and texts give no numbers: {', '.join(names)})" if names else ""


def _remark(result: StepResult, model: LiT, recall: float) -> str:
    memory = torch.cuda.max_memory_allocated() if model.center.is_cuda else peak_memory()
    seen = "" if np.isnan(recall) else f" recall {recall:.0%}"
    return f"loss {result.loss:.3f} temperature {model.logit_scale:.1f}{seen} {memory / 1e9:.1f} GB"
