"""Charts: numbers lie where their axes say."""

import math
import re

from littune.evaluation.report.charts import SHARES, Axis, Line, chart, whisker
from tests.evaluation.report.conftest import Outline

UNIT = Axis(label="share", ticks=SHARES, place=float)


def _points(page: str) -> list[tuple[float, float]]:
    found = re.findall(r'points="([^"]*)"', page)
    return [(float(x), float(y)) for line in found for x, y in (point.split(",") for point in line.split())]


def test_a_line_through_the_corners_fills_the_chart() -> None:
    page = chart([Line(name="a < b", kind="first", points=((0, 0), (1, 1), (0.5, 0.5)))], x=UNIT, y=UNIT, title="t")
    (left, bottom), (right, top), middle = _points(page)
    assert left < right and top < bottom
    assert middle == ((left + right) / 2, (top + bottom) / 2)
    assert "a &lt; b" in page and Outline(page).text.startswith("t a < b")


def test_a_dot_grows_with_its_weight() -> None:
    line = Line(name="", kind="first", points=((0, 0), (1, 1)), weights=(0.0, 1.0))
    small, large = map(float, re.findall(r' r="([^"]*)"', chart([line], x=UNIT, y=UNIT, title="t")))
    assert 0 < small < large


def test_a_whisker_spans_its_interval_and_says_it() -> None:
    page = whisker(0.5, (0.4, 0.6))
    assert 'aria-label="50.0 %, interval 40.0 to 60.0 %"' in page
    (low, high) = (float(x) for x in re.findall(r'class="span" x1="([\d.]+)" y1="9.0" x2="([\d.]+)"', page)[0])
    dot = float(re.findall(r'cx="([\d.]+)"', page)[0])
    assert dot == (low + high) / 2


def test_a_whisker_without_numbers_draws_none() -> None:
    assert "circle" in whisker(0.5, None) and "span" not in whisker(0.5, None)
    assert "circle" not in whisker(math.nan, (math.nan, math.nan))
