"""One exact optimisation step at any batch size (design: "An exact step at any batch size").

The loss sees the whole global batch; a tower sees one micro-batch at a time. When the batch is small enough, the
micro-batches' graphs are kept and one backward pass goes through them all. Otherwise the tower's outputs are
computed without a graph, the loss's gradient with respect to them is taken, and each micro-batch is run again with
a graph that its part of that gradient is pushed through: memory is that of the outputs and of one micro-batch, and
the gradients are those of the plain whole-batch step, to rounding. A locked tower is a table of its outputs.

Of several ranks, each runs its own share of the images and texts; the loss is over all of them, and the
parameters' gradients are summed over the ranks.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from littune.base.distributed import ALONE, Ranks
from littune.base.errors import LittuneError
from littune.tuning.data.batches import Indices
from littune.tuning.optim.optimizers import apply_gradients

# Of the outputs for a batch's images and texts to its loss.
Loss = Callable[[Float[Tensor, "i image_dim"], Float[Tensor, "t text_dim"]], Float[Tensor, ""]]

Outputs = Iterator[tuple[Indices, Float[Tensor, "m dim"]]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How one side of a batch is run.

    Attributes:
        outputs: micro-batch after micro-batch, the positions in the batch and the outputs for them, with a graph
            unless gradients are off; together every position once. It is called once for each pass.
        two_passes: whether the graphs of all micro-batches together are too large to keep.
        graph_bytes: about what is kept of graphs at a time.
    """

    outputs: Callable[[], Outputs]
    two_passes: bool = False
    graph_bytes: int = 0


@runtime_checkable
class Side(Protocol):
    """The images or the texts of a training set: a table of a locked tower's outputs, or a tower that is trained."""

    def planned(self, numbers: Indices, step: int) -> AbstractContextManager[Plan]:
        """A context in which the images or texts with these numbers are run, and how to run them.

        Args:
            numbers: which, int64 (n,); none twice.
            step: decides what is drawn at random for them (an augmentation, a view).
        """
        ...


class DivergedError(LittuneError):
    """The loss or a gradient is no number. No weight has been touched.

    Attributes:
        positions: for each side, the positions in the batch whose outputs or gradients are no numbers.
    """

    def __init__(self, what: str, positions: Sequence[Indices]) -> None:
        super().__init__(f"{what}: training has diverged; try a lower learning rate")
        self.positions = positions


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a step was like: its loss, and the gradients' global norm before clipping."""

    loss: float
    gradient_norm: float


def contrastive_step(
    sides: Sequence[tuple[Side, Indices]],
    loss_of: Loss,
    optimizer: torch.optim.Optimizer,
    *,
    step: int,
    max_norm: float,
    ranks: Ranks = ALONE,
) -> StepResult:
    """Take one step on a global batch.

    Args:
        sides: the images and the texts, each with the numbers of this rank's share of the batch.
        loss_of: the loss, of the two sides' outputs in the order of those numbers; whatever else it uses (heads,
            temperature) is trained too. Over several ranks it is the global loss, on every rank the same.
        optimizer: over all that is trained; its learning rates are set.
        step: the step's number.
        max_norm: clip the gradients' global norm at this.
        ranks: among whom the batch is shared.

    Raises:
        DivergedError: the loss or the gradients' norm is not finite; no weight has been touched.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, slopes = backward(sides, loss_of, step=step)
    sum_gradients((p for group in optimizer.param_groups for p in group["params"]), ranks)
    try:
        norm = apply_gradients(optimizer, max_norm=max_norm)
    except LittuneError as error:
        raise DivergedError("the gradient's norm is no number", [_not_finite(slope) for slope in slopes]) from error
    return StepResult(loss=loss, gradient_norm=norm)


def backward(
    sides: Sequence[tuple[Side, Indices]], loss_of: Loss, *, step: int
) -> tuple[float, list[Float[Tensor, "n dim"]]]:
    """Add the exact gradients of the loss to ``.grad`` of all that is trained.

    Returns:
        The loss, and its gradient with respect to the outputs of each side; zeros where the tower is locked.

    Raises:
        DivergedError: the loss is not finite.
    """
    with ExitStack() as stack:
        plans = [stack.enter_context(side.planned(numbers, step)) for side, numbers in sides]
        pooled = [_first_pass(plan) for plan in plans]
        loss = loss_of(*pooled)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the loss is {value}", [_not_finite(outputs) for outputs in pooled])
        torch.autograd.backward(loss)
        for plan, outputs in zip(plans, pooled, strict=True):
            if plan.two_passes:
                assert outputs.grad is not None, "the loss depends on both sides"
                _second_pass(plan, outputs.grad)
    return value, [torch.zeros_like(out) if out.grad is None else out.grad for out in pooled]


def sum_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Replace every rank's gradients by their sum; a rank that has none for a parameter adds nothing."""
    if ranks.size > 1:
        for parameter in parameters:
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = ranks.sum(grad)


def outputs_in_order(plan: Plan) -> Float[Tensor, "n dim"]:
    """All of a plan's outputs in the batch's order, with graphs unless gradients are off."""
    parts = list(plan.outputs())
    outputs = torch.cat([output for _, output in parts])
    places = torch.from_numpy(np.argsort(np.concatenate([positions for positions, _ in parts])))
    return outputs[places.to(outputs.device)]


def _first_pass(plan: Plan) -> Float[Tensor, "n dim"]:
    """All outputs in the batch's order: with the graph of the tower, or as leaves that gather their gradient."""
    with torch.set_grad_enabled(not plan.two_passes):
        ordered = outputs_in_order(plan)
    if plan.two_passes:
        ordered.requires_grad_()
    if ordered.requires_grad:
        ordered.retain_grad()
    return ordered


def _second_pass(plan: Plan, gradient: Float[Tensor, "n dim"]) -> None:
    for positions, output in plan.outputs():
        torch.autograd.backward(output, gradient[torch.from_numpy(positions).to(gradient.device)])


def _not_finite(outputs: Float[Tensor, "n dim"]) -> Indices:
    return np.flatnonzero(~outputs.detach().isfinite().all(dim=1).cpu().numpy())
