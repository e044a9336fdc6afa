"""The demo's page: escaped, whole in itself, and true to the report."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from littune.apps.demo_page import PhotoResult, Picture, QueryResult, Report, ScoreRow, percent, thumbnail, to_html
from littune.apps.demo_pictures import Photo

NASTY = "<script>alert('x')</script> & \"quotes\""


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A report of one photograph and one drawing."""
    path = tmp_path / "photo.png"
    Image.new("RGB", (60, 40), "green").save(path)
    svg = tmp_path / "drawing.svg"
    svg.write_text('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>')
    photo = Photo(file="photo.png", title="A lawn", label="lawn", credit="Somebody, CC0")
    found = [Picture(name="lawn", path=path), Picture(name="leaf", path=svg)]
    return Report(
        photos=[PhotoResult(photo=photo, path=path, scores=[("meadow", 0.7), ("lawn", 0.25), ("sky", 0.05)])],
        labels=["lawn", "meadow", "sky"],
        photo_queries=[QueryResult(words="grass", found=found[:1])],
        drawing_queries=[QueryResult(words="a plant", found=found[1:])],
        num_drawings=7,
        scores=[ScoreRow(task="name → drawing", num_questions=7, num_answers=8, hits={1: 0.5, 5: 0.75})],
        facts={"text tower": "package:minilm"},
        seconds={"train": 3.2, "score": 1.1},
    )


class _Tags(HTMLParser):
    """Collects the tags with their attributes, and checks that they are closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag


def check_self_contained(page: str) -> None:
    """Check that the page loads nothing: pictures lie in it, and links are only there to be clicked."""
    for tag, attributes in _Tags(page).tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert not any(name.startswith("on") for name in attributes)
        if tag == "img":
            assert re.match(r"data:image/(jpeg|svg\+xml);base64,", attributes["src"] or "")
    assert "url(" not in page and "@import" not in page


def test_the_page_needs_nothing_else(report: Report) -> None:
    check_self_contained(to_html(report))


def test_every_text_is_escaped(report: Report) -> None:
    photo = replace(report.photos[0].photo, title=NASTY, label=NASTY, credit=NASTY)
    nasty = replace(
        report,
        photos=[replace(report.photos[0], photo=photo, scores=[("sky", 0.9), (NASTY, 0.1)])],
        labels=[NASTY],
        photo_queries=[QueryResult(words=NASTY, found=[Picture(name=NASTY, path=report.photos[0].path)])],
        scores=[replace(report.scores[0], task=NASTY)],
        facts={NASTY: NASTY},
        seconds={NASTY: 1.0},
    )
    page = to_html(nasty)
    check_self_contained(page)
    assert "alert(" in page and "<script" not in page and '"quotes"' not in page


def test_what_is_wrong_is_shown(report: Report) -> None:
    page = to_html(report)
    assert "0 of 1" in " ".join(page.split())
    assert "✗ a person would say “lawn”: place 2" in page
    right = replace(report.photos[0], scores=[("lawn", 0.9), ("meadow", 0.1)])
    page = to_html(replace(report, photos=[right]))
    assert "1 of 1" in " ".join(page.split()) and "✗" not in page


def test_scores_stand_beside_chance(report: Report) -> None:
    page = to_html(report)
    assert "<b>50</b> <small>12</small>" in page
    assert "<b>75</b> <small>62</small>" in page
    assert report.scores[0].chance(10) == 1.0


def test_percents() -> None:
    assert [percent(value) for value in (0.0, 0.0012, 0.0994, 0.0996, 0.5, 1.0)] == [
        "0",
        "0.1",
        "9.9",
        "10",
        "50",
        "100",
    ]


def test_a_thumbnail_is_the_middle_square(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), "red")
    picture.paste((0, 0, 255), (100, 0, 200, 100))
    path = tmp_path / "wide.png"
    picture.save(path)
    (tmp_path / "small.jpg").write_bytes(thumbnail(path, side=50))
    with Image.open(tmp_path / "small.jpg") as small:
        assert small.size == (50, 50)
        assert all(abs(value - wanted) < 8 for value, wanted in zip(small.getpixel((3, 3)), (0, 0, 255), strict=True))
