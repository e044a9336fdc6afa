"""Which parameters learn, and how: kernels that decay, rules by name, and late or gentle unlocking (paper, App. H).

As in big_vision, weight decay is decoupled and on kernels only: the matrices of linear layers and
convolutions, not biases, norms, embedding tables or the temperature. Its size is on torch's scale, which
multiplies it by the learning rate: the paper's 1e-4 at a learning rate of 1e-3 is 0.1 here.

What is locked has no gradient and no optimiser state.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypedDict

from torch import Tensor, nn

from littune.base.errors import InputError

_LAYERS_WITH_KERNELS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MultiheadAttention)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the parameters whose names match a pattern learn; of several rules that match, the last one holds."""

    pattern: str
    """A shell pattern over whole parameter names, such as ``text.encoder.*``; it holds no colon."""
    factor: float
    """Factor on the learning rate; 0 locks."""
    start: float = 0.0
    """Share of all steps before which the learning rate is 0; the warm-up begins there."""

    @classmethod
    def parse(cls, spec: str) -> "Rule":
        """Read ``PATTERN:FACTOR[:START]``.

        Raises:
            InputError: it is spelled otherwise, or a number is out of its range.
        """
        pattern, *numbers = spec.split(":")
        if not pattern or not 1 <= len(numbers) <= 2:
            raise InputError(f"rule {spec!r} is not spelled PATTERN:FACTOR[:START]")
        factor = _number(spec, "FACTOR", numbers[0])
        start = _number(spec, "START", numbers[1]) if len(numbers) == 2 else 0.0
        if factor < 0:
            raise InputError(f"rule {spec!r}: FACTOR must be 0 or more")
        if not 0 <= start < 1:
            raise InputError(f"rule {spec!r}: START must be a share of the steps, from 0 to below 1")
        if start and not factor:
            raise InputError(
                f"rule {spec!r}: FACTOR 0 locks for good; leave out START, or give the factor from then on"
            )
        return cls(pattern=pattern, factor=factor, start=start)


def _number(spec: str, name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"rule {spec!r}: {name} {text!r} is no finite number; spell it PATTERN:FACTOR[:START]")
    return number


_NO_RULE = Rule(pattern="*", factor=1.0)


class ParameterGroup(TypedDict):
    """Parameters that share a weight decay, a factor on the learning rate and the share of steps where they start."""

    params: list[nn.Parameter]
    weight_decay: float
    lr_factor: float
    start: float


def apply_rules(model: nn.Module, rules: Sequence[Rule]) -> None:
    """Lock the parameters of ``model`` that ``rules`` lock; none is unlocked.

    Raises:
        InputError: a rule matches no parameter.
    """
    for parameter, rule in _ruled(model, rules).items():
        if rule.factor == 0:
            parameter.requires_grad_(False)


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    lr_factors: Mapping[nn.Module, float] | None = None,
    rules: Sequence[Rule] = (),
) -> list[ParameterGroup]:
    """The parameters of ``model`` that are to be trained, grouped; locked ones (no gradient) are left out.

    Args:
        model: any module, to which ``apply_rules`` has applied ``rules``.
        weight_decay: decay of the kernels, on torch's scale; everything else has none.
        lr_factors: parts of ``model`` and the factor on their learning rate; the rest has 1.
        rules: by name, further factors and when to start.

    Raises:
        InputError: a rule matches no parameter.
    """
    kernels = {id(kernel) for kernel in _kernels(model)}
    factors = {id(p): factor for part, factor in (lr_factors or {}).items() for p in part.parameters()}
    ruled = _ruled(model, rules)
    groups: dict[tuple[float, float, float], ParameterGroup] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            rule = ruled.get(parameter, _NO_RULE)
            assert rule.factor > 0, f"{rule.pattern} has not been applied"
            decay = weight_decay if id(parameter) in kernels else 0.0
            factor = factors.get(id(parameter), 1.0) * rule.factor
            group = ParameterGroup(params=[], weight_decay=decay, lr_factor=factor, start=rule.start)
            groups.setdefault((decay, factor, rule.start), group)["params"].append(parameter)
    return list(groups.values())


def _ruled(model: nn.Module, rules: Sequence[Rule]) -> dict[nn.Parameter, Rule]:
    """The rule that holds for each parameter that any matches, by whichever name of a shared one."""
    named = list(model.named_parameters(remove_duplicate=False))
    ruled = {}
    for rule in rules:
        matched = [parameter for name, parameter in named if fnmatchcase(name, rule.pattern)]
        if not matched:
            close = difflib.get_close_matches(rule.pattern, [name for name, _ in named], n=3, cutoff=0.0)
            raise InputError(f"rule {rule.pattern!r} matches no parameter; there are {', '.join(close)}, …")
        ruled.update(dict.fromkeys(matched, rule))
    return ruled


def _kernels(model: nn.Module) -> Iterable[Tensor]:
    for module in model.modules():
        if isinstance(module, _LAYERS_WITH_KERNELS):
            yield from (p for p in module.parameters(recurse=False) if p.ndim >= 2)
