"""Markup: what is not markup is escaped, whatever it is put into."""

import math
from pathlib import Path

import pytest

from littune.base.errors import LittuneError
from littune.evaluation.report.markup import Html, bracket, join, percent, score, table, tag, write_page
from tests.evaluation.report.conftest import NASTY, CheckPage


def test_children_and_attributes_are_escaped() -> None:
    assert tag("p", {"title": 'a "b"'}, "1 < 2") == '<p title="a &quot;b&quot;">1 &lt; 2</p>'


def test_markup_is_not_escaped_again() -> None:
    assert tag("p", {}, tag("b", {}, "&"), Html("<i></i>")) == "<p><b>&amp;</b><i></i></p>"


def test_a_string_made_of_markup_is_no_markup() -> None:
    assert join([f"{tag('b', {}, 'x')}!"]) == "&lt;b&gt;x&lt;/b&gt;!"


def test_an_image_is_not_closed() -> None:
    assert tag("img", {"alt": ""}) == '<img alt="">'


def test_percents_and_intervals() -> None:
    assert [percent(value) for value in (0.0, 0.6534, 1.0, math.nan)] == ["0.0", "65.3", "100.0", "–"]
    assert bracket((0.631, 0.675)) == "[63.1, 67.5]"
    assert score(0.5, None) == "<b>50.0</b>"
    assert score(0.5, (0.25, 0.75)) == "<b>50.0</b><small>[25.0, 75.0]</small>"


def test_a_table_has_heads_for_its_rows_and_columns(check_page: CheckPage) -> None:
    page = table(NASTY, ("", NASTY), [[NASTY, NASTY]])
    outline = check_page(page)
    assert [attributes for name, attributes in outline.tags if name == "th"] == [
        {"scope": "col"},
        {"scope": "col"},
        {"scope": "row"},
    ]
    assert outline.text == " ".join([NASTY] * 4)


def test_a_page_holds_the_browser_to_loading_nothing(tmp_path: Path, check_page: CheckPage) -> None:
    write_page(tmp_path / "page.html", NASTY, tag("p", {}, "hello"))
    outline = check_page((tmp_path / "page.html").read_text(encoding="utf-8"))
    policies = [attributes["content"] for _, attributes in outline.tags if "http-equiv" in attributes]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none';")
    assert "script-src" not in (policies[0] or "")


def test_a_name_that_was_no_text_is_written_all_the_same(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", "t", tag("p", {}, "a\udcffb"))
    assert "<p>a?b</p>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LittuneError, match=r"page\.html"):
        write_page(tmp_path / "file" / "page.html", "t")
