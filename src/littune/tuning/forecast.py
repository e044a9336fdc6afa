"""``train --dry-run``: what a run would train, take and cost, before anything is spent.

A few micro-batches are run, forward and backward, and a small loss; the rest is arithmetic.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from littune.base.distributed import ALONE
from littune.base.memory import peak_memory
from littune.config import TrainConfig
from littune.tuning.data.batches import Indices
from littune.tuning.loss.objective import loss_of_rows
from littune.tuning.setup import Setup, set_up
from littune.tuning.step import Side

_NUM_TIMED = 64
_LOSS_ROWS = 1024
# Embeddings with their gradients, factors with theirs, and what normalising them keeps.
_COPIES = 4


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run would be like; times are of this machine now."""

    parameters_trained: int
    parameters_locked: int
    pairs: int
    images: int
    texts: int
    mean_tokens: float
    steps: int
    images_in_a_batch: int
    texts_in_a_batch: int
    step_seconds: float
    loss_share: float
    run_seconds: float
    memory_gb: float

    def to_text(self) -> str:
        """Lines for people."""
        trained, locked = self.parameters_trained, self.parameters_locked
        hours, seconds = divmod(round(self.run_seconds), 3600)
        return "\n".join(
            (
                f"parameters    {trained:,} trained, {locked:,} locked",
                f"data          {self.pairs:,} pairs of {self.images:,} images and {self.texts:,} distinct texts, "
                f"{self.mean_tokens:.1f} tokens a text",
                f"a batch       {self.images_in_a_batch:,} distinct images, {self.texts_in_a_batch:,} distinct texts",
                f"a step        about {self.step_seconds:.2f} s, of which the loss takes {self.loss_share:.0%}",
                f"the run       {self.steps:,} steps, about {hours} h {seconds // 60:02} min {seconds % 60:02} s",
                f"memory        about {self.memory_gb:.1f} GB at the most",
            )
        )


def forecast(config: TrainConfig) -> Forecast:
    """Set a run up, time a little of it, and say what all of it would be; nothing is written into its folder.

    Raises:
        LittuneError: what ``fit`` would refuse.
    """
    with TemporaryDirectory() as out:
        return _forecast(replace(config, out=Path(out)) if config.store else _on_pairs(config, Path(out)))


def _on_pairs(config: TrainConfig, out: Path) -> TrainConfig:
    """A locked tower is not run over all images for their mean, which takes as long as no step does."""
    center = config.center if config.from_run or config.trains_image or config.center_on else "none"
    return replace(config, out=out, center=center)


def _forecast(config: TrainConfig) -> Forecast:
    setup = set_up(config, ALONE)
    batch = setup.batches.at(0)
    lengths = setup.tokens.lengths.numpy()
    texts, text_graph = _cost(setup.texts, batch.texts, weight=lengths)
    images, image_graph = _cost(setup.images, batch.images, weight=np.ones(len(setup.corpus.row_image)))
    loss = _loss_seconds(setup, config, len(batch.images), len(batch.texts))
    step = texts + images + loss
    total = setup.batches.num_steps(config.epochs)
    parameters = list(setup.model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    rows = len(batch.images) * len(setup.model.center) + len(batch.texts) * (setup.model.text.dim + setup.model.dim)
    state = 3 * trained  # gradients and two moments, which a run has and this has not
    on_gpu = setup.model.center.is_cuda
    now = torch.cuda.memory_allocated() if on_gpu else peak_memory()
    return Forecast(
        parameters_trained=trained,
        parameters_locked=sum(p.numel() for p in parameters if not p.requires_grad),
        pairs=len(setup.corpus.row_image),
        images=int(setup.corpus.row_image.max()) + 1,
        texts=len(setup.corpus.texts),
        mean_tokens=float(lengths.mean()),
        steps=total,
        images_in_a_batch=len(batch.images),
        texts_in_a_batch=len(batch.texts),
        step_seconds=step,
        loss_share=loss / step,
        run_seconds=step * total,
        memory_gb=(now + text_graph + image_graph + 4 * (_COPIES * rows + state)) / 1e9,
    )


def _cost(side: Side, numbers: Indices, *, weight: np.ndarray) -> tuple[float, int]:
    """How long all ``numbers`` take, from a sample of them (twice forward in two passes), and the bytes of a graph."""
    sample = np.sort(np.random.default_rng(0).permutation(numbers)[:_NUM_TIMED])
    with side.planned(numbers, 0) as plan:
        two_passes, graph = plan.two_passes, plan.graph_bytes
    with side.planned(sample, 0) as plan:
        forward = _time(lambda: list(plan.outputs()), grad=False)
        both = _time(lambda: [_pushed(output) for _, output in plan.outputs()], grad=True)
    once = both + (forward if two_passes else 0.0)
    return once * float(weight[numbers].sum() / weight[sample].sum()), graph


def _pushed(output: Tensor) -> Tensor:
    if output.requires_grad:
        torch.autograd.backward(output.sum())
    return output


def _loss_seconds(setup: Setup, config: TrainConfig, num_images: int, num_texts: int) -> float:
    model = setup.model
    count = min(_LOSS_ROWS, num_images, num_texts)
    device = model.center.device
    images = torch.randn(count, len(model.center), device=device, requires_grad=config.trains_image)
    pooled = torch.randn(count, model.text.dim, device=device, requires_grad=True)
    positives = torch.arange(count, device=device)[:, None].expand(-1, 2)

    def run() -> None:
        torch.autograd.backward(loss_of_rows(model, *model.factors(images, pooled), positives, ALONE))

    # Parts of a batch have fewer logits together than the whole.
    cells = num_images * num_texts / count**2 / config.loss_parts
    seconds = _time(run, grad=True) * cells
    model.zero_grad(set_to_none=True)
    return seconds


def _time(run: Callable[[], object], *, grad: bool) -> float:
    """Seconds of the quicker of two runs; the first also warms up."""
    taken = []
    for _ in range(2):
        with torch.set_grad_enabled(grad):
            started = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - started)
    return min(taken)
