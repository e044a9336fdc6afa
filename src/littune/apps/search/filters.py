"""Filters on what a store says of its rows: which conditions there are, and when one holds.

A value equals another if they read the same: ``640``, ``640.0`` and ``"640"`` are one, ``True`` is ``"true"``. Of a
list, one value is enough. A name is a column, a field, or a dotted path into nested ones (``translations.de``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from littune.base.errors import InputError

_FORMS = 'a value, a list of values, or for numbers {"min": …, "max": …}'

Where = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What must hold of one column: one of these texts, or a number between two ends, both included."""

    column: str
    texts: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf

    def holds(self, value: object) -> bool:
        """Whether it holds of a row's value, or of one of its values."""
        if isinstance(value, list | tuple):
            return any(self.holds(one) for one in value)
        if self.texts:
            return value is not None and as_text(value) in self.texts
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


def conditions_of(where: Where, classnames: Sequence[str] | None = None) -> tuple[Condition, ...]:
    """The conditions that are all to hold.

    Args:
        where: for each column what it must be: a value, a list (any of it), or ``{"min": …, "max": …}``.
        classnames: what the numbers in the column ``label`` mean; that column may be asked for by these names.

    Raises:
        InputError: something else is asked of a column, or no class has the name.
    """
    return tuple(_condition(column, wanted, classnames) for column, wanted in where.items())


def as_text(value: object) -> str:
    """How a value reads."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) and math.isfinite(value):
        return format(Decimal(repr(value)).normalize(), "f")
    return str(value)


def _condition(column: str, wanted: object, classnames: Sequence[str] | None) -> Condition:
    if isinstance(wanted, Mapping):
        return _between(column, wanted)
    values = list(wanted) if isinstance(wanted, list | tuple | set | frozenset) else [wanted]
    if not values or not all(isinstance(value, str | int | float) for value in values):
        raise InputError(f"the filter on {column} is {wanted!r}; give {_FORMS}")
    if column == "label" and classnames is not None:
        values = [_label(value, classnames) for value in values]
    return Condition(column=column, texts=tuple(as_text(value) for value in values))


def _between(column: str, ends: Mapping[str, object]) -> Condition:
    if not ends or ends.keys() - {"min", "max"}:
        raise InputError(f"the filter on {column} is {dict(ends)!r}; give {_FORMS}")
    for end in ends.values():
        if not isinstance(end, int | float) or isinstance(end, bool) or not math.isfinite(end):
            raise InputError(f"the filter on {column} ends at {end!r}, which is no number")
    numbers = {name: float(str(end)) for name, end in ends.items()}
    return Condition(column=column, low=numbers.get("min", -math.inf), high=numbers.get("max", math.inf))


def _label(value: object, classnames: Sequence[str]) -> object:
    """The number of a class that is asked for by its name; a number stays one."""
    if not isinstance(value, str) or value.isdecimal():
        return value
    if value not in classnames:
        raise InputError(f"no class is called {value!r}; the classes are {', '.join(classnames[:20])}")
    return classnames.index(value)
