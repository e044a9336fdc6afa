"""Runs side by side, as one HTML page that needs nothing else."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol, runtime_checkable

from littune.evaluation.metrics.uncertainty import Paired
from littune.evaluation.report.charts import whisker
from littune.evaluation.report.findings import facts, spelled
from littune.evaluation.report.markup import Html, details, join, score, table, tag, write_page
from littune.evaluation.report.scores import set_title, short_names
from littune.evaluation.results import Interval

_CLEAR = 0.05
_NOTE = (
    "The brackets are 95 % intervals: of a score, from its images drawn anew with replacement; of a difference, from "
    "the same images drawn for both runs. p is how often so large a difference comes up by chance, when each image's "
    "two scores are swapped at random. A difference with p below 0.05 is marked; of twenty without any cause, one is."
)


@runtime_checkable
class ComparedRow(Protocol):
    """A metric on one set, for each run; ``littune.evaluation.comparison.ComparisonRow`` is one."""

    @property
    def data(self) -> str: ...

    @property
    def language(self) -> str: ...

    @property
    def metric(self) -> str: ...

    @property
    def scores(self) -> Sequence[float]: ...

    @property
    def intervals(self) -> Sequence[Interval]: ...

    @property
    def differences(self) -> Sequence[Paired | None]: ...


@runtime_checkable
class Compared(Protocol):
    """Runs side by side; ``littune.evaluation.comparison.Comparison`` is one."""

    @property
    def runs(self) -> Sequence[str]: ...

    @property
    def rows(self) -> Sequence[ComparedRow]: ...

    @property
    def about(self) -> Mapping[str, object]: ...


def write_comparison(path: str | Path, comparison: Compared) -> None:
    """Write the page of a comparison.

    Raises:
        LittuneError: the file cannot be written.
    """
    first, *others = comparison.runs
    against = join((tag("b", {}, name) for name in others), ", ")
    names = short_names(row.data for row in comparison.rows)
    sets = groupby(comparison.rows, key=lambda row: set_title(names[row.data], row.language))
    about = (
        details(name, facts(value)) for name, value in comparison.about.items() if isinstance(value, Mapping) and value
    )
    body = [
        tag(
            "header",
            {},
            tag("h1", {}, "Comparison"),
            tag("p", {"class": "lead"}, against, " beside ", tag("b", {}, first), ", on the same images."),
        ),
        tag(
            "main",
            {},
            *(_set(title, list(rows), comparison.runs) for title, rows in sets),
            tag("p", {"class": "note"}, _NOTE if comparison.rows else "No set was scored."),
            tag("section", {}, tag("h2", {}, "The runs"), *about) if comparison.about else Html(""),
        ),
    ]
    write_page(Path(path), "littune: comparison", *body)


def _set(title: str, rows: Sequence[ComparedRow], runs: Sequence[str]) -> Html:
    """A set's first metric of each direction, and the others for those who ask."""
    shown: dict[str, ComparedRow] = {}
    for row in rows:
        shown.setdefault(row.metric.rpartition("/")[0], row)
    others = [row for row in rows if row is not shown[row.metric.rpartition("/")[0]]]
    rest = details("Other metrics", *(_metric(row, runs) for row in others)) if others else Html("")
    heads = (_metric(row, runs) for row in shown.values())
    return tag("section", {"class": "set"}, tag("h2", {}, title), *heads, rest)


def _metric(row: ComparedRow, runs: Sequence[str]) -> Html:
    """One metric of all runs, one under the other, so that the whiskers can be compared by eye."""
    head = ("run", "score", "difference", "p", "0 to 100")
    rows = [
        [name, score(value, interval), _difference(paired), _chance(paired), whisker(value, interval)]
        for name, value, interval, paired in zip(runs, row.scores, row.intervals, row.differences, strict=True)
    ]
    return table(f"{spelled(row.metric)}, %", head, rows, kind="scores compared")


def _difference(paired: Paired | None) -> Html:
    if paired is None:
        return Html("")
    low, high = paired.interval
    clear = paired.p_value < _CLEAR
    kind = ("better" if paired.difference > 0 else "worse") if clear else "unclear"
    number = tag("b", {"class": kind}, f"{_signed(paired.difference)}{' *' if clear else ''}")
    return join([number, tag("small", {}, f"[{_signed(low)}, {_signed(high)}]")])


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.1f}".replace("-", "−")


def _chance(paired: Paired | None) -> str:
    if paired is None:
        return ""
    return "< 0.001" if paired.p_value < 0.001 else f"{paired.p_value:.3f}"
