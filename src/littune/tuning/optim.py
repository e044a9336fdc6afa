"""Parameter groups, AdamW, schedules and clipping (paper, App. C and D).

As in big_vision, weight decay is decoupled and on kernels only: the matrices of linear layers and
convolutions, not biases, norms, embedding tables or the temperature. Its size is on torch's scale, which
multiplies it by the learning rate: the paper's 1e-4 at a learning rate of 1e-3 is 0.1 here.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Literal, TypedDict

import torch
from torch import Tensor, nn

from littune.base.errors import LittuneError

Schedule = Literal["cosine", "constant"]

_LAYERS_WITH_KERNELS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


class ParameterGroup(TypedDict):
    """Parameters that share a weight decay and a factor on the learning rate."""

    params: list[nn.Parameter]
    weight_decay: float
    lr_factor: float


def parameter_groups(
    model: nn.Module, *, weight_decay: float, lr_factors: Mapping[nn.Module, float] | None = None
) -> list[ParameterGroup]:
    """The parameters of ``model`` that are to be trained, grouped; locked ones (no gradient) are left out.

    Args:
        model: any module.
        weight_decay: decay of the kernels, on torch's scale; everything else has none.
        lr_factors: parts of ``model`` and the factor on their learning rate; the rest has 1.
    """
    kernels = {id(kernel) for kernel in _kernels(model)}
    factors = {id(p): factor for part, factor in (lr_factors or {}).items() for p in part.parameters()}
    groups: dict[tuple[float, float], ParameterGroup] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = weight_decay if id(parameter) in kernels else 0.0
            factor = factors.get(id(parameter), 1.0)
            group = ParameterGroup(params=[], weight_decay=decay, lr_factor=factor)
            groups.setdefault((decay, factor), group)["params"].append(parameter)
    return list(groups.values())


def adamw(
    groups: Iterable[ParameterGroup], *, lr: float, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.AdamW:
    """AdamW over ``groups``; set each step's learning rate with ``set_learning_rate``."""
    return torch.optim.AdamW([dict(group) for group in groups], lr=lr, betas=betas, fused=True)


def schedule(step: int, *, total: int, warmup: int, kind: Schedule = "cosine") -> float:
    """The factor on the learning rate in step ``step`` of ``total``, counted from 0.

    It rises linearly over ``warmup`` steps to 1 (the first step is not lost: it has 1 / warmup), then falls as
    half a cosine to 0 at ``total``, or stays.
    """
    if step < warmup:
        return (step + 1) / warmup
    if kind == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group the learning rate ``lr`` times its own factor."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_factor"]


def apply_gradients(optimizer: torch.optim.Optimizer, *, max_norm: float) -> float:
    """Clip the gradients' global norm at ``max_norm``, take the optimiser's step, and return the norm before clipping.

    Raises:
        LittuneError: the norm is not finite; no weight has been touched.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    value = float(norm)
    if not math.isfinite(value):
        raise LittuneError(f"the gradient's norm is {value}: training has diverged; try a lower learning rate")
    if value > max_norm:
        nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    optimizer.step()
    return value


def _kernels(model: nn.Module) -> Iterable[Tensor]:
    for module in model.modules():
        if isinstance(module, _LAYERS_WITH_KERNELS):
            yield from (p for p in module.parameters(recurse=False) if p.ndim >= 2)
