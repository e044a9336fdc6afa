"""Results as tables of percents for people to read."""

from collections.abc import Iterable, Mapping, Sequence
from io import StringIO

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from littune.evaluation.results import Result

_DIRECTIONS = {"text_to_image": "text → image", "image_to_text": "image → text"}
_WIDER_THAN_ANY_TABLE = 1000


def to_text(results: Sequence[Result]) -> str:
    """A table for each task that occurs, as plain text, in percent."""
    console = Console(file=StringIO(), width=_WIDER_THAN_ANY_TABLE)
    with console.capture() as captured:
        for table in tables(results):
            console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")


def tables(results: Sequence[Result]) -> list[Table]:
    """A table for each task that occurs, in percent."""
    zero_shot = [result for result in results if result.task == "zero_shot"]
    retrieval = [result for result in results if result.task == "retrieval"]
    made = []
    if zero_shot:
        names = _names(result.metrics for result in zero_shot)
        rows = [[result.data, f"{result.num_images:,}", *_cells(result.metrics, names)] for result in zero_shot]
        made.append(_table("zero-shot classification, %", ["data", "images", *names], rows))
    if retrieval:
        names = _names(_of_direction(result, direction) for result in retrieval for direction in _DIRECTIONS)
        rows = [row for result in retrieval for row in _retrieval_rows(result, names)]
        made.append(_table("retrieval, %", ["data", "images", "texts", "direction", *names], rows))
    return made


def _retrieval_rows(result: Result, names: Sequence[str]) -> list[list[str]]:
    about = [result.data, f"{result.num_images:,}", f"{result.num_texts:,}"]
    return [
        [*about, arrow, *_cells(_of_direction(result, direction), names)] for direction, arrow in _DIRECTIONS.items()
    ]


def _of_direction(result: Result, direction: str) -> dict[str, float]:
    return {
        name.removeprefix(f"{direction}/"): value
        for name, value in result.metrics.items()
        if name.startswith(f"{direction}/")
    }


def _names(metrics: Iterable[Mapping[str, float]]) -> list[str]:
    """Every name that occurs, in order of first appearance."""
    return list(dict.fromkeys(name for its in metrics for name in its))


def _cells(metrics: Mapping[str, float], names: Sequence[str]) -> list[str]:
    return [f"{100 * metrics[name]:.1f}" if name in metrics else "-" for name in names]


def _heading(name: str) -> str:
    return name.replace("recall_dedup@", "dedup R@").replace("recall@", "R@").replace("_", " ")


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in header:
        justify: JustifyMethod = "left" if name in ("data", "direction") else "right"
        table.add_column(_heading(name), justify=justify)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
