"""Live progress and messages, on stderr, so that stdout holds results alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


@runtime_checkable
class Advance(Protocol):
    """What ``track`` hands out: call it with how many units are done, and optionally a short remark."""

    def __call__(self, count: int = 1, remark: str = "") -> None: ...


class _Rate(ProgressColumn):
    """Units done per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else f"- {self._unit}/s", style="progress.data.speed")


def log(message: str) -> None:
    """Print one line of plain text to stderr."""
    Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False).print(message)


@contextmanager
def track(what: str, *, total: int | None, unit: str, quiet: bool = False) -> Iterator[Advance]:
    """Show a bar with count, rate and time left on stderr while the block runs.

    Args:
        what: the bar's title, such as "embedding".
        total: how many units there are, or None where that is not known.
        unit: the unit's plural, such as "images".
        quiet: show nothing, as another process does.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(unit),
        TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}"),
    )
    console = Console(stderr=True, emoji=False)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task(what, total=total, remark="")

        def advance(count: int = 1, remark: str = "") -> None:
            if remark:
                progress.update(task, advance=count, remark=remark)
            else:
                progress.update(task, advance=count)

        yield advance
