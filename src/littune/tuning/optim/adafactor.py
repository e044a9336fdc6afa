"""Adafactor as the paper trains with it (App. C): Adam's quality for half of AdamW's memory or less.

It is big_vision's variant: the second moment of a large matrix is kept as the means of its rows and columns, the
first moment in bfloat16, and the update is neither clipped nor scaled by the size of the weights. Of tensors with
more than two dimensions (convolutions) the two largest are factored. Weight decay is decoupled: on torch's
scale, as that of AdamW.
"""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

# A second moment is factored where its two largest dimensions both have this size.
MIN_SIZE_TO_FACTOR = 32

# In step t, counted from 1, the second moment decays by min(MAX_DECAY, 1 - t^-DECAY_POWER).
DECAY_POWER = 0.8
MAX_DECAY = 0.999

MOMENTUM = 0.9

# Added to squared gradients, so that what has none divides by no zero.
EPSILON = 1e-30


class Adafactor(torch.optim.Optimizer):
    """big_vision's Adafactor.

    State of a parameter: ``step``, its number of updates; ``momentum``, bfloat16 in its shape; and float32
    (float64 for a float64 parameter) either ``squares`` in its shape or ``rows`` and ``columns``, in which the
    largest and the second largest dimension are 1. A parameter without a gradient has no state.

    Args:
        params: parameters, or groups of them with ``lr`` and ``weight_decay`` of their own.
        lr: learning rate; at 0 no weight changes.
        weight_decay: decoupled decay; multiplied by the learning rate.
    """

    def __init__(
        self, params: Iterable[nn.Parameter] | Iterable[dict[str, Any]], *, lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._update(parameter, parameter.grad)
                    if group["weight_decay"]:
                        parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update, alpha=group["lr"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state bit for bit, as copies on the parameters' devices.

        torch would cast it to the parameters' dtype.
        """
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                if isinstance(value, Tensor):
                    self.state[parameter][name] = value.to(parameter.device, copy=True)

    def _update(self, parameter: Tensor, gradient: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        state = self.state[parameter]
        if not state:
            state.update(_initial_state(gradient))
        state["step"] += 1
        update = _normalised(gradient, state)
        # Rounded only where it is kept: this step's update uses the exact average.
        average = update.mul_(1 - MOMENTUM).add_(state["momentum"], alpha=MOMENTUM)
        state["momentum"].copy_(average)
        return average


def _initial_state(gradient: Tensor) -> dict[str, Any]:
    state = {"step": 0, "momentum": torch.zeros_like(gradient, dtype=torch.bfloat16)}
    dimensions = _factored_dimensions(gradient.shape)
    if dimensions is None:
        return {**state, "squares": torch.zeros_like(gradient, dtype=_dtype(gradient))}
    for name, averaged in zip(("columns", "rows"), dimensions, strict=True):
        shape = [1 if dimension == averaged else size for dimension, size in enumerate(gradient.shape)]
        state[name] = gradient.new_zeros(shape, dtype=_dtype(gradient))
    return state


def _dtype(gradient: Tensor) -> torch.dtype:
    """What the second moment is kept in."""
    return torch.promote_types(gradient.dtype, torch.float32)


def _factored_dimensions(shape: torch.Size) -> tuple[int, int] | None:
    """The second largest dimension and the largest (the later one among equals), or None where one is small."""
    dimensions = sorted(range(len(shape)), key=lambda dimension: shape[dimension])[-2:]
    if len(dimensions) < 2 or shape[dimensions[0]] < MIN_SIZE_TO_FACTOR:
        return None
    return dimensions[0], dimensions[1]


def _normalised(gradient: Float[Tensor, "*shape"], state: dict[str, Any]) -> Float[Tensor, "*shape"]:
    """Bring the second moment up to date and divide the gradient by its root."""
    weight = 1 - min(MAX_DECAY, 1 - state["step"] ** -DECAY_POWER)
    gradient = gradient.to(_dtype(gradient))
    squares = gradient.square()
    dimensions = _factored_dimensions(gradient.shape)
    if dimensions is None:
        moment: Tensor = state["squares"].lerp_(squares.add_(EPSILON), weight)
        return torch.rsqrt(moment, out=squares).mul_(gradient)
    second, largest = dimensions
    rows: Tensor = state["rows"].lerp_(squares.mean(largest, keepdim=True).add_(EPSILON), weight)
    columns: Tensor = state["columns"].lerp_(squares.mean(second, keepdim=True).add_(EPSILON), weight)
    # The second moment is taken to be rows × columns / mean of the rows.
    row_factors = (rows / rows.mean(second, keepdim=True)).rsqrt()
    return torch.mul(gradient, row_factors, out=squares).mul_(columns.rsqrt())
