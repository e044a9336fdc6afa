"""The demo's contact sheet: one PNG of photographs with their labels, and words with the pictures they find."""

import io
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from littune.apps.demo_page import PhotoResult, QueryResult, Report, middle_square, percent
from littune.apps.demo_pictures import render_svg
from littune.base.files import write_atomic

_INK, _SOFT, _BAR, _RIGHT, _WRONG = "#1c1b19", "#6a665f", "#d9d4cb", "#7cc49a", "#a8442a"
_BARS = 3
_PHOTOS_A_ROW = 6
_PHOTO_QUERIES_A_ROW = 3
_DRAWING_QUERIES_A_ROW = 2
_DRAWING_QUERIES = 4  # the first ones: the page has them all
_WIDTH = 16.0
_PHOTO_HEIGHT, _PHOTO_QUERY_HEIGHT, _DRAWING_QUERY_HEIGHT, _CREDIT_HEIGHT = 3.7, 2.3, 1.95, 0.35
_CREDIT = "photographs: scikit-image (CC0, public domain, no known restrictions); drawings: OpenMoji, CC BY-SA 4.0"


def draw_sheet(report: Report, path: Path) -> None:
    """Draw the report's photographs and queries and write them to the PNG ``path``."""
    drawing_queries = report.drawing_queries[:_DRAWING_QUERIES]
    heights = [
        _PHOTO_HEIGHT * _num_rows(report.photos, _PHOTOS_A_ROW),
        _PHOTO_QUERY_HEIGHT * _num_rows(report.photo_queries, _PHOTO_QUERIES_A_ROW),
        _DRAWING_QUERY_HEIGHT * _num_rows(drawing_queries, _DRAWING_QUERIES_A_ROW),
        _CREDIT_HEIGHT,
    ]
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=100, facecolor="white")
    photos, photo_finds, drawing_finds, credit = figure.subfigures(4, 1, height_ratios=heights, squeeze=False).flat
    for cell, photo in zip(_cells(photos, report.photos, _PHOTOS_A_ROW), report.photos, strict=False):
        _draw_photo(cell, photo)
    _draw_queries(photo_finds, report.photo_queries, _PHOTO_QUERIES_A_ROW)
    _draw_queries(drawing_finds, drawing_queries, _DRAWING_QUERIES_A_ROW)
    credit.text(0.99, 0.5, _CREDIT, ha="right", va="center", fontsize=9, color=_SOFT)
    write_atomic(path, lambda file: figure.savefig(file, format="png"))


def _draw_photo(cell: SubFigure, result: PhotoResult) -> None:
    picture, bars = cell.subplots(2, 1, height_ratios=[2.5, 1.0])
    cell.subplots_adjust(left=0.05, right=0.95, top=0.97, bottom=0.06, hspace=0.04)
    _show(picture, result.path, side=320)
    bars.axis("off")
    bars.set(xlim=(0, 1), ylim=(_BARS - 0.5, -0.5))
    for place, (label, score) in enumerate(result.scores[:_BARS]):
        right = label == result.photo.label
        bars.barh(place, max(score, 0.006), height=0.78, color=_RIGHT if right else _BAR)
        color = _WRONG if place == 0 and not right else _INK
        bars.text(0.02, place, label, va="center", fontsize=12, color=color, fontweight="bold" if right else "normal")
        bars.text(0.98, place, f"{percent(score)} %", va="center", ha="right", fontsize=11, color=_SOFT)


def _draw_queries(part: SubFigure, queries: Sequence[QueryResult], a_row: int) -> None:
    for cell, query in zip(_cells(part, queries, a_row), queries, strict=False):
        _draw_query(cell, query)


def _draw_query(cell: SubFigure, result: QueryResult) -> None:
    cell.subplots_adjust(left=0.03, right=0.97, top=0.8, bottom=0.22, wspace=0.1)
    cell.text(0.03, 0.96, f"“{result.words}”", va="top", fontsize=14, color=_INK, fontweight="bold")
    for axes, picture in zip(np.atleast_1d(cell.subplots(1, len(result.found))), result.found, strict=True):
        _show(axes, picture.path, side=200)
        name = textwrap.fill(picture.name, 15)
        axes.text(0.5, -0.06, name, transform=axes.transAxes, ha="center", va="top", fontsize=10, color=_SOFT)


def _num_rows(things: Sequence[object], a_row: int) -> int:
    return -(-len(things) // a_row)


def _cells(part: SubFigure, things: Sequence[object], a_row: int) -> Iterator[SubFigure]:
    """Places for the things, row by row; the last row may have some to spare."""
    return iter(part.subfigures(_num_rows(things, a_row), a_row, squeeze=False).flat)


def _show(axes: Axes, path: Path, *, side: int) -> None:
    encoded = render_svg(path, size=side) if path.suffix == ".svg" else path.read_bytes()
    with Image.open(io.BytesIO(encoded)) as picture:
        square = middle_square(picture.convert("RGB")).resize((side, side), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(square))
    axes.axis("off")
