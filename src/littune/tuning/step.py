"""One exact optimisation step at any batch size (design: "An exact step at any batch size").

The loss sees the whole global batch; the text tower sees one micro-batch at a time. When the batch is small
enough, the micro-batches' graphs are kept and one backward pass goes through them all. Otherwise the texts are
embedded without a graph, the loss's gradient with respect to the tower's outputs is taken, and each micro-batch
is run again with a graph that its part of that gradient is pushed through: memory is that of the outputs and
of one micro-batch, and the gradients are those of the plain whole-batch step, to rounding. A locked tower is a
table of its outputs, in one pass. Dropout must be 0, or the second run would differ from the first.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from littune.base.errors import LittuneError
from littune.towers.text import TextTower, Tokens
from littune.towers.tokenizer import micro_batches
from littune.tuning.batches import Indices
from littune.tuning.optim import apply_gradients

# Of a batch's pooled text outputs (t, dim) to its loss.
Loss = Callable[[Float[Tensor, "t dim"]], Float[Tensor, ""]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a batch's texts are run: the positions in each micro-batch, and whether in two passes."""

    micro_batches: list[Indices]
    two_passes: bool


@runtime_checkable
class Texts(Protocol):
    """What turns text numbers into pooled outputs: a locked tower's table, or a tower that is trained."""

    def planned(self, texts: Indices) -> AbstractContextManager[Plan]:
        """A context in which these texts, a global batch, are run, and how to run them."""
        ...

    def __call__(self, texts: Indices) -> Float[Tensor, "t dim"]:
        """The texts' pooled outputs, float32, with a graph unless gradients are off."""
        ...


@dataclass(frozen=True)
class LockedTexts:
    """The outputs of a locked text tower, computed once, float32 (texts, dim)."""

    outputs: Float[Tensor, "n dim"]

    def planned(self, texts: Indices) -> AbstractContextManager[Plan]:
        """All at once."""
        return nullcontext(Plan(micro_batches=[np.arange(len(texts))], two_passes=False))

    def __call__(self, texts: Indices) -> Float[Tensor, "t dim"]:
        """Look the outputs up."""
        return self.outputs[torch.from_numpy(texts)]


@dataclass(frozen=True, kw_only=True)
class TunedTexts:
    """A text tower that is trained, over texts that were tokenised once.

    Attributes:
        tower: the tower, in eval mode.
        tokens: of every text.
        device: where the tower is.
        bfloat16: run the tower under bfloat16 autocast; its outputs, the loss and the gradients are float32.
        micro_tokens: tokens in a micro-batch, padding included.
        graph_tokens: with at most so many tokens in all, one pass keeps every micro-batch's graph.
    """

    tower: TextTower
    tokens: Tokens
    device: torch.device
    bfloat16: bool = False
    micro_tokens: int = 1024
    graph_tokens: int = 8192

    @contextmanager
    def planned(self, texts: Indices) -> Iterator[Plan]:
        """Micro-batches by length; two passes when the whole does not fit. Words are gathered once for all."""
        rows = torch.from_numpy(texts)
        lengths = self.tokens.lengths[rows].numpy()
        cuts = micro_batches(lengths, self.micro_tokens)
        tokens = sum(len(cut) * int(lengths[cut[0]]) for cut in cuts)
        with self.tower.gathered_words(self.tokens.batch(rows)[0]):
            yield Plan(micro_batches=cuts, two_passes=tokens > self.graph_tokens)

    def __call__(self, texts: Indices) -> Float[Tensor, "t dim"]:
        """Run the tower."""
        ids, mask = self.tokens.batch(torch.from_numpy(texts))
        # A context for every run: autocast's cache of weights must not span one without and one with a graph.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            pooled: Tensor = self.tower(ids.to(self.device), mask.to(self.device))
        return pooled


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step was like: its loss, and the gradients' global norm before clipping."""

    loss: float
    gradient_norm: float


def contrastive_step(
    texts: Texts, batch_texts: Indices, loss_of: Loss, optimizer: torch.optim.Optimizer, *, max_norm: float
) -> StepResult:
    """Take one step on a global batch.

    Args:
        texts: turns text numbers into pooled outputs.
        batch_texts: the batch's texts, int64 (t,).
        loss_of: the loss, of the pooled outputs in the order of ``batch_texts``; whatever else it uses (heads,
            temperature) is trained too.
        optimizer: over all that is trained; its learning rates are set.
        max_norm: clip the gradients' global norm at this.

    Raises:
        LittuneError: the loss or the gradients' norm is not finite; no weight has been touched.
    """
    optimizer.zero_grad(set_to_none=True)
    loss = backward(texts, batch_texts, loss_of)
    return StepResult(loss=loss, gradient_norm=apply_gradients(optimizer, max_norm=max_norm))


def backward(texts: Texts, batch_texts: Indices, loss_of: Loss) -> float:
    """Add the exact gradients of the loss to ``.grad`` of all that is trained, and return the loss.

    Raises:
        LittuneError: the loss is not finite.
    """
    with texts.planned(batch_texts) as plan:
        with torch.set_grad_enabled(not plan.two_passes):
            outputs = torch.cat([texts(batch_texts[cut]) for cut in plan.micro_batches])
        places = torch.from_numpy(np.argsort(np.concatenate(plan.micro_batches)))
        pooled = outputs[places.to(outputs.device)]
        if plan.two_passes:
            pooled.requires_grad_()
        loss = loss_of(pooled)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise LittuneError(f"the loss is {value}: training has diverged; try a lower learning rate")
        torch.autograd.backward(loss)
        if plan.two_passes:
            assert pooled.grad is not None, "the loss depends on the texts"
            for cut in plan.micro_batches:
                part = pooled.grad[torch.from_numpy(cut).to(pooled.device)]
                torch.autograd.backward(texts(batch_texts[cut]), part)
    return value
