"""Charts as SVG, drawn in the page's own colours: they follow light and dark, and a reader's size of type."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan

from littune.evaluation.report.markup import Attributes, Html, join, percent, tag
from littune.evaluation.results import Interval

_WIDTH, _HEIGHT = 340, 262
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 10, 10, 40
_WHISKER_WIDTH, _WHISKER_HEIGHT = 132, 18
_WHISKER_EDGE = 6


@dataclass(frozen=True, kw_only=True)
class Axis:
    """From numbers to places between 0 and 1.

    Attributes:
        label: what it measures.
        ticks: the numbers that are written, each with how.
        place: where a number lies.
    """

    label: str
    ticks: Sequence[tuple[float, str]]
    place: Callable[[float], float]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart.

    Attributes:
        name: for the legend.
        kind: how it looks: ``first``, ``second`` or ``guide``.
        points: what it runs through.
        weights: the size of each point's dot, from 0 to 1; empty for a line without dots.
    """

    name: str
    kind: str
    points: Sequence[tuple[float, float]]
    weights: Sequence[float] = ()


SHARES = tuple((tick / 100, f"{tick}") for tick in (0, 20, 40, 60, 80, 100))
"""The ticks of a fraction's axis."""


def chart(lines: Sequence[Line], *, x: Axis, y: Axis, title: str, caption: str = "") -> Html:
    """A figure of lines over two axes, with a legend."""
    drawn = [_grid(x, y), *(_line(line, x, y) for line in lines)]
    view = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": title}
    legend = tag("ul", {"class": "legend"}, *(tag("li", {"class": line.kind}, line.name) for line in lines))
    note = tag("p", {}, caption) if caption else Html("")
    words = tag("figcaption", {}, tag("h4", {}, title), legend)
    return tag("figure", {"class": "chart"}, words, tag("svg", view, *drawn), note)


def whisker(value: float, interval: Interval | None) -> Html:
    """A score as a dot between 0 and 100 %, its interval as a line through it."""
    said = f"{percent(value)} %"
    if interval is not None:
        said += f", interval {percent(interval[0])} to {percent(interval[1])} %"
    view: Attributes = {
        "class": "whisker",
        "width": _WHISKER_WIDTH,
        "height": _WHISKER_HEIGHT,
        "viewBox": f"0 0 {_WHISKER_WIDTH} {_WHISKER_HEIGHT}",
        "role": "img",
        "aria-label": said,
    }
    middle = _WHISKER_HEIGHT / 2
    parts = [_segment(_along(0), middle, _along(1), middle, "rail")]
    parts += [_segment(_along(at), middle - 3, _along(at), middle + 3, "rail") for at in (0.0, 0.5, 1.0)]
    if interval is not None and not any(map(isnan, interval)):
        low, high = map(_along, interval)
        parts.append(_segment(low, middle, high, middle, "span"))
        parts += [_segment(end, middle - 5, end, middle + 5, "span") for end in (low, high)]
    if not isnan(value):
        parts.append(tag("circle", {"cx": f"{_along(value):.1f}", "cy": f"{middle:.1f}", "r": 3}))
    return tag("svg", view, *parts)


def _along(fraction: float) -> float:
    return _WHISKER_EDGE + fraction * (_WHISKER_WIDTH - 2 * _WHISKER_EDGE)


def _grid(x: Axis, y: Axis) -> Html:
    parts = []
    for value, word in y.ticks:
        height = _down(y.place(value))
        parts.append(_segment(_LEFT, height, _WIDTH - _RIGHT, height, "grid"))
        parts.append(_text(_LEFT - 6, height + 4, word, "end"))
    for value, word in x.ticks:
        across = _across(x.place(value))
        parts.append(_segment(across, _HEIGHT - _BOTTOM, across, _HEIGHT - _BOTTOM + 4, "grid"))
        parts.append(_text(across, _HEIGHT - _BOTTOM + 16, word, "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x.label, "middle"))
    turned: Attributes = {
        "x": 0,
        "y": 0,
        "text-anchor": "middle",
        "transform": f"translate(10 {middle:.1f}) rotate(-90)",
    }
    parts.append(tag("text", turned, y.label))
    return tag("g", {"class": "axes"}, *parts)


def _line(line: Line, x: Axis, y: Axis) -> Html:
    places = [(_across(x.place(at)), _down(y.place(value))) for at, value in line.points]
    path = " ".join(f"{across:.1f},{down:.1f}" for across, down in places)
    dots = (
        tag("circle", {"cx": f"{across:.1f}", "cy": f"{down:.1f}", "r": f"{1.5 + 6 * weight**0.5:.1f}"})
        for (across, down), weight in zip(places, line.weights, strict=False)
    )
    return tag("g", {"class": line.kind}, tag("polyline", {"points": path}), join(dots))


def _across(place: float) -> float:
    return _LEFT + place * (_WIDTH - _LEFT - _RIGHT)


def _down(place: float) -> float:
    return _HEIGHT - _BOTTOM - place * (_HEIGHT - _BOTTOM - _TOP)


def _segment(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return tag("line", {"class": kind} | ends)


def _text(x: float, y: float, words: str, anchor: str) -> Html:
    return tag("text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}, words)
