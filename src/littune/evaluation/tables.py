"""Results as tables of percents for people to read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import TypeVar

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from littune.evaluation.results import DIRECTIONS, Interval, Result

_ABOUT = ("data", "language", "scored", "images")
_CONDITIONS = {"duplicates": "without near-duplicates"}
_WORDS = ("data", "language", "scored", "direction", "subject", "of", "metric")
_WIDER_THAN_ANY_TABLE = 1000

_T = TypeVar("_T")


def to_text(results: Sequence[Result]) -> str:
    """A table for each task that occurs, as plain text, in percent."""
    return as_text(tables(results))


def tables(results: Sequence[Result]) -> list[Table]:
    """A table for each task that occurs, in percent, ± half the 95 % interval; and what else was found, as numbers."""
    rows = [row for result in results for row in _rows(result)]
    made = []
    zero_shot = [row for row in rows if row.result.task == "zero_shot"]
    if zero_shot:
        names = _names(row.metrics for row in zero_shot)
        cells = [[*row.about(), *_cells(row.metrics, row.intervals, names)] for row in zero_shot]
        made.append(_table("zero-shot classification, %", [*_ABOUT, *names], cells))
    retrieval = [row for row in rows if row.result.task == "retrieval"]
    if retrieval:
        names = _names(_of_direction(row.metrics, direction) for row in retrieval for direction in DIRECTIONS)
        names = [name for name in names if not _says_nothing_new(name, retrieval)]
        cells = [line for row in retrieval for line in _both_ways(row, names)]
        made.append(_table("retrieval, %", [*_ABOUT, "texts", "direction", *names], cells))
    found = [
        [result.data, result.language, subject, name.replace("_", " "), f"{value:.3g}"]
        for result in results
        for subject, its in result.findings.items()
        for name, value in its.items()
        if name not in result.metrics
    ]
    if found:
        made.append(
            _table(
                "what else was found, as numbers (1 is 100 %)", ["data", "language", "subject", "of", "number"], found
            )
        )
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """Scores of one set: as they are, or under some condition."""

    result: Result
    condition: str = ""
    num_images: int
    num_texts: int | None
    metrics: Mapping[str, float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    def about(self) -> list[str]:
        return [self.result.data, self.result.language, self.condition, f"{self.num_images:,}"]


def _rows(result: Result) -> Iterator[_Row]:
    """A set's scores, and then those among its findings: normalised, without near-duplicates, in English."""
    counts = result.num_images, result.num_texts
    yield _Row(
        result=result, num_images=counts[0], num_texts=counts[1], metrics=result.metrics, intervals=result.intervals
    )
    for subject, found in result.findings.items():
        scores = {name: value for name, value in found.items() if name in result.metrics}
        if scores:
            # How many texts went with the images that were left out is told nowhere.
            images, texts = (counts[0] - len(result.duplicates), None) if subject == "duplicates" else counts
            named = _CONDITIONS.get(subject, subject)
            yield _Row(result=result, condition=named, num_images=images, num_texts=texts, metrics=scores)


def _says_nothing_new(name: str, rows: Iterable[_Row]) -> bool:
    """Whether a score that counts duplicate texts for every owner is the plain score in every row."""
    kind, _, k = name.partition("@")
    if kind != "recall_dedup":
        return False
    ours = [_of_direction(row.metrics, direction) for row in rows for direction in DIRECTIONS]
    return all(its.get(name) == its.get(f"recall@{k}") for its in ours)


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


def _both_ways(row: _Row, names: Sequence[str]) -> list[list[str]]:
    return [
        [
            *row.about(),
            "" if row.num_texts is None else f"{row.num_texts:,}",
            arrow,
            *_cells(_of_direction(row.metrics, direction), _of_direction(row.intervals, direction), names),
        ]
        for direction, arrow in DIRECTIONS.items()
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
