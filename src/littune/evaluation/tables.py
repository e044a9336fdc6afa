"""Results as tables of percents for people to read."""

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import TypeVar

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from littune.evaluation.results import Interval, Result

_DIRECTIONS = {"text_to_image": "text → image", "image_to_text": "image → text"}
_WORDS = ("data", "language", "direction", "subject", "of", "metric")
_WIDER_THAN_ANY_TABLE = 1000

_T = TypeVar("_T")


def to_text(results: Sequence[Result]) -> str:
    """A table for each task that occurs, as plain text, in percent."""
    return as_text(tables(results))


def tables(results: Sequence[Result]) -> list[Table]:
    """A table for each task that occurs, in percent, ± half the 95 % interval; and what else was found, as numbers."""
    zero_shot = [result for result in results if result.task == "zero_shot"]
    retrieval = [result for result in results if result.task == "retrieval"]
    made = []
    if zero_shot:
        names = _names(result.metrics for result in zero_shot)
        rows = [[*_about(result), *_cells(result.metrics, result.intervals, names)] for result in zero_shot]
        made.append(_table("zero-shot classification, %", ["data", "language", "images", *names], rows))
    if retrieval:
        names = _names(_of_direction(result.metrics, direction) for result in retrieval for direction in _DIRECTIONS)
        rows = [row for result in retrieval for row in _retrieval_rows(result, names)]
        made.append(_table("retrieval, %", ["data", "language", "images", "texts", "direction", *names], rows))
    found = [
        [result.data, result.language, subject, f"{name.replace('_', ' ')}", f"{value:.3g}"]
        for result in results
        for subject, its in result.findings.items()
        for name, value in its.items()
    ]
    if found:
        made.append(_table("what else was found", ["data", "language", "subject", "of", "number"], found))
    return made


def comparison_table(runs: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Runs side by side."""
    return _table("runs side by side, %; differences to the first", ["data", "metric", *runs], rows)


def as_text(made: Sequence[Table]) -> str:
    """Tables as plain text."""
    console = Console(file=StringIO(), width=_WIDER_THAN_ANY_TABLE)
    with console.capture() as captured:
        for table in made:
            console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def percent(value: float, interval: Interval | None = None) -> str:
    """In percent with one decimal, ± half the interval where there is one."""
    half = "" if interval is None else f" ±{50 * (interval[1] - interval[0]):.1f}"
    return f"{100 * value:.1f}{half}"


def _about(result: Result) -> list[str]:
    return [result.data, result.language, f"{result.num_images:,}"]


def _retrieval_rows(result: Result, names: Sequence[str]) -> list[list[str]]:
    about = [*_about(result), f"{result.num_texts:,}"]
    return [
        [
            *about,
            arrow,
            *_cells(_of_direction(result.metrics, direction), _of_direction(result.intervals, direction), names),
        ]
        for direction, arrow in _DIRECTIONS.items()
    ]


def _of_direction(its: Mapping[str, _T], direction: str) -> dict[str, _T]:
    return {
        name.removeprefix(f"{direction}/"): value for name, value in its.items() if name.startswith(f"{direction}/")
    }


def _names(metrics: Iterable[Mapping[str, float]]) -> list[str]:
    """Every name that occurs, in order of first appearance."""
    return list(dict.fromkeys(name for its in metrics for name in its))


def _cells(metrics: Mapping[str, float], intervals: Mapping[str, Interval], names: Sequence[str]) -> list[str]:
    return [percent(metrics[name], intervals.get(name)) if name in metrics else "-" for name in names]


def _heading(name: str) -> str:
    return name.replace("recall_dedup@", "dedup R@").replace("recall@", "R@").replace("_", " ")


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    # A column in which nothing is said is left out.
    shown = [place for place in range(len(header)) if any(row[place] for row in rows)]
    for place in shown:
        justify: JustifyMethod = "left" if header[place] in _WORDS else "right"
        table.add_column(_heading(header[place]), justify=justify)
    for row in rows:
        table.add_row(*(Text(row[place]) for place in shown))
    return table
