"""Optimisers, schedules and clipping (paper, App. C and D)."""

import math
from collections.abc import Iterable
from typing import assert_never

import torch
from torch import nn

from littune.base.errors import LittuneError
from littune.config import Optimizer, Schedule
from littune.tuning.optim.adafactor import Adafactor
from littune.tuning.optim.groups import ParameterGroup

_BETAS = (0.9, 0.999)


def make_optimizer(name: Optimizer, groups: Iterable[ParameterGroup], *, lr: float) -> torch.optim.Optimizer:
    """An optimiser over ``groups``; set each step's learning rate with ``set_learning_rate``.

    The paper's Adam, whose weight decay is decoupled, is "adamw"; "adam" has no decay.
    """
    options = [dict(group) for group in groups]
    match name:
        case "adamw":
            return torch.optim.AdamW(options, lr=lr, betas=_BETAS, fused=True)
        case "adam":
            assert not any(group["weight_decay"] for group in options), "decay that is not decoupled is not offered"
            return torch.optim.Adam(options, lr=lr, betas=_BETAS, fused=True)
        case "adafactor":
            return Adafactor(options, lr=lr)
    assert_never(name)


def schedule(step: int, *, total: int, warmup: int, kind: Schedule = "cosine", start: int = 0) -> float:
    """The factor on the learning rate in step ``step`` of ``total``, counted from 0.

    It is 0 before step ``start`` and rises linearly over the next ``warmup`` steps to 1 (the first of them is not
    lost: it has 1 / warmup). Then it falls as half a cosine to 0 at ``total``, or stays, or falls with one over the
    square root of the steps: in step ``start + n`` it is sqrt(warmup / n), whose time scale is the warm-up.
    """
    done = step - start
    if done < 0:
        return 0.0
    if done < warmup:
        return (done + 1) / warmup
    after = done - warmup
    match kind:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * after / max(1, total - start - warmup)))
        case "constant":
            return 1.0
        case "rsqrt":
            return 1 / math.sqrt(1 + after / max(1, warmup))
    assert_never(kind)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, *, lr: float, step: int, total: int, warmup: int, kind: Schedule = "cosine"
) -> float:
    """Give every group its learning rate for ``step``: ``lr`` by its own factor, on a schedule from its own start.

    Args:
        optimizer: over groups of ``parameter_groups``.
        lr: peak learning rate.
        step: the step to come, from 0.
        total: steps in all.
        warmup: steps of warming up.
        kind: what follows the warm-up.

    Returns:
        The learning rate of what has factor 1 and starts at once.
    """
    for group in optimizer.param_groups:
        start = min(round(group["start"] * total), total - 1)
        factor = schedule(step, total=total, warmup=warmup, kind=kind, start=start)
        group["lr"] = lr * group["lr_factor"] * factor
    return lr * schedule(step, total=total, warmup=warmup, kind=kind)


def apply_gradients(optimizer: torch.optim.Optimizer, *, max_norm: float) -> float:
    """Clip the gradients' global norm at ``max_norm``, take the optimiser's step, and return the norm before clipping.

    A group whose learning rate is 0 is still locked: its gradients are dropped, so that they neither count in the
    norm nor leave a trace in the optimiser's state.

    Raises:
        LittuneError: the norm is not finite; no weight has been touched.
    """
    for group in optimizer.param_groups:
        if group["lr"] == 0:
            for parameter in group["params"]:
                parameter.grad = None
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    value = float(norm)
    if not math.isfinite(value):
        raise LittuneError(f"the gradient's norm is {value}: training has diverged; try a lower learning rate")
    if value > max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    optimizer.step()
    return value
