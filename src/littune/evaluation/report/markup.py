"""HTML that cannot be forgotten to escape: ``tag`` escapes every child that is not markup of its own making.

A page loads nothing: its style is in it, its pictures are ``data:`` URIs, there is no script, and a content
policy in its head holds the browser to that.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from math import isnan
from pathlib import Path

from littune.base.files import write_bytes
from littune.evaluation.results import Interval

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
Attributes = Mapping[str, str | int | float]

_VOID = frozenset(("img", "meta", "col", "br", "wbr"))


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, attributes: Attributes | None = None, *children: str) -> Html:
    """An element; children and values of attributes are escaped, but for children that are ``Html``."""
    given = "".join(f' {key}="{escape(str(value))}"' for key, value in (attributes or {}).items())
    if name in _VOID:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def join(parts: Iterable[str], between: str = "") -> Html:
    """The parts one after another, escaped where they are not ``Html``."""
    return Html(between.join(part if isinstance(part, Html) else escape(part) for part in parts))


def percent(fraction: float) -> str:
    """A fraction in percent with one decimal; a dash where there is no number."""
    return "–" if isnan(fraction) else f"{100 * fraction:.1f}"


def bracket(interval: Interval | None) -> str:
    """``[63.1, 67.5]``, in percent; nothing where there is no interval."""
    return "" if interval is None else f"[{percent(interval[0])}, {percent(interval[1])}]"


def score(fraction: float, interval: Interval | None) -> Html:
    """A score in percent above its interval."""
    under = tag("small", {}, bracket(interval)) if interval else Html("")
    return join([tag("b", {}, percent(fraction)), under])


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, kind: str = "", hidden_caption: bool = False
) -> Html:
    """A table in a region that scrolls sideways on its own where it is too wide; the first cell of a row is its head.

    Args:
        caption: what it shows.
        head: the columns' names; none for a table without a head.
        rows: the cells.
        kind: the class in the style sheet.
        hidden_caption: whether only screen readers are told the caption, as a heading says it already.
    """
    named = tag("caption", {"class": "hidden"} if hidden_caption else {}, caption)
    top = tag("thead", {}, tag("tr", {}, *(tag("th", {"scope": "col"}, name) for name in head))) if head else Html("")
    body = tag("tbody", {}, *(_row(row) for row in rows))
    region = {"class": "wide", "role": "region", "aria-label": caption, "tabindex": "0"}
    return tag("div", region, tag("table", {"class": kind} if kind else {}, named, top, body))


def _row(cells: Sequence[str]) -> Html:
    first, *others = cells
    return tag("tr", {}, tag("th", {"scope": "row"}, first), *(tag("td", {}, cell) for cell in others))


def details(summary: str, *children: str) -> Html:
    """What is shown when one asks for it."""
    return tag("details", {}, tag("summary", {}, summary), *children)


def write_page(path: Path, title: str, *body: str) -> None:
    """Atomically write a page of these elements.

    Raises:
        LittuneError: the file cannot be written.
    """
    style = (files("littune.evaluation.report") / "report.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        {},
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", {}, title),
        tag("style", {}, Html(style)),
    )
    page = tag("html", {"lang": "en"}, head, tag("body", {}, *body))
    # A lone surrogate (a name that was no UTF-8) cannot be written; a question mark can.
    write_bytes(path, f"<!doctype html>\n{page}\n".encode("utf-8", "replace"))
