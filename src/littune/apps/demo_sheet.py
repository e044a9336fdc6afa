"""The demo's contact sheet: one PNG of photographs with their labels, and words with the pictures they find."""

import io
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
_QUERIES_A_ROW = 2
_PICTURES_A_QUERY = 6
_WIDTH, _PHOTO_HEIGHT, _QUERY_HEIGHT = 16.0, 3.7, 1.75


def draw_sheet(report: Report, path: Path) -> None:
    """Draw the report's photographs and queries and write them to the PNG ``path``."""
    photo_rows = -(-len(report.photos) // _PHOTOS_A_ROW)
    query_rows = -(-len(report.drawing_queries) // _QUERIES_A_ROW)
    heights = [photo_rows * _PHOTO_HEIGHT, query_rows * _QUERY_HEIGHT]
    figure = Figure(figsize=(_WIDTH, sum(heights)), dpi=100, facecolor="white")
    upper, lower = figure.subfigures(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    cells = upper.subfigures(photo_rows, _PHOTOS_A_ROW, squeeze=False).flat
    for cell, photo in zip(cells, report.photos, strict=False):
        _draw_photo(cell, photo)
    cells = lower.subfigures(query_rows, _QUERIES_A_ROW, squeeze=False).flat
    for cell, query in zip(cells, report.drawing_queries, strict=False):
        _draw_query(cell, query)
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


def _draw_query(cell: SubFigure, result: QueryResult) -> None:
    cell.subplots_adjust(left=0.03, right=0.97, top=0.8, bottom=0.12, wspace=0.1)
    cell.text(0.03, 0.97, f"“{result.words}”", va="top", fontsize=14, color=_INK, fontweight="bold")
    axes = np.atleast_1d(cell.subplots(1, _PICTURES_A_QUERY))
    for place in axes:
        place.axis("off")
    for place, picture in zip(axes, result.found, strict=False):
        _show(place, picture.path, side=144)
        place.set_title(picture.name, y=-0.2, fontsize=9, color=_SOFT)


def _show(axes: Axes, path: Path, *, side: int) -> None:
    encoded = render_svg(path, size=side) if path.suffix == ".svg" else path.read_bytes()
    with Image.open(io.BytesIO(encoded)) as picture:
        square = middle_square(picture.convert("RGB")).resize((side, side), Image.Resampling.LANCZOS)
    axes.imshow(np.asarray(square))
    axes.axis("off")
