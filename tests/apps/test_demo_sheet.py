"""The demo's contact sheet."""

from pathlib import Path

import numpy as np
from PIL import Image

from littune.apps.demo_page import PhotoResult, Picture, QueryResult, Report
from littune.apps.demo_pictures import Photo
from littune.apps.demo_sheet import draw_sheet


def test_the_sheet_shows_the_photographs(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.new("RGB", (60, 40), "magenta").save(path)
    photo = Photo(file="photo.png", title="Magenta", label="magenta", credit="Somebody, CC0")
    result = PhotoResult(photo=photo, path=path, scores=[("cyan", 0.7), ("magenta", 0.2), ("grey", 0.1)])
    query = QueryResult(words="a colour", found=[Picture(name="magenta", path=path)] * 6)
    draw_sheet(
        Report(
            photos=[result] * 7,
            labels=["cyan", "magenta", "grey"],
            photo_queries=[query],
            drawing_queries=[query] * 5,
            num_drawings=6,
            scores=[],
            facts={},
            seconds={},
        ),
        tmp_path / "sheet.png",
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    assert pixels.shape[1] == 1600
    magenta = (pixels == (255, 0, 255)).all(axis=2)
    assert magenta.mean() > 0.15
    # The seventh photograph opens a second row; the other places of that row stay empty.
    second_row = magenta[380:600]
    assert second_row[:, :260].any() and not second_row[:, 280:].any()
