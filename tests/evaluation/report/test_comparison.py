"""The page of several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from littune.evaluation.metrics.uncertainty import Paired
from littune.evaluation.report.comparison import write_comparison
from littune.evaluation.results import Interval
from tests.evaluation.report.conftest import NASTY, CheckPage, Outline


@dataclass(frozen=True, kw_only=True)
class _Row:
    data: str
    language: str = ""
    metric: str
    scores: Sequence[float]
    intervals: Sequence[Interval]
    differences: Sequence[Paired | None]


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    runs: Sequence[str]
    rows: Sequence[_Row] = ()
    about: Mapping[str, object] = field(default_factory=dict)


ROW = _Row(
    data="sets/colors",
    metric="accuracy@1",
    scores=[0.5, 0.6, 0.4],
    intervals=[(0.4, 0.6), (0.5, 0.7), (0.3, 0.5)],
    differences=[
        None,
        Paired(difference=0.1, interval=(0.05, 0.15), p_value=0.0004),
        Paired(difference=-0.1, interval=(-0.25, 0.05), p_value=0.125),
    ],
)


def test_runs_stand_under_each_other_with_their_differences(tmp_path: Path, check_page: CheckPage) -> None:
    text = _written(tmp_path, _Comparison(runs=["a", "b", "c"], rows=[ROW]), check_page).text
    assert "b , c beside a , on the same images." in text
    assert "accuracy@1, % run score difference p 0 to 100 a 50.0 [40.0, 60.0] b" in text
    assert "b 60.0 [50.0, 70.0] +10.0 * [+5.0, +15.0] < 0.001" in text
    assert "c 40.0 [30.0, 50.0] −10.0 [−25.0, +5.0] 0.125" in text


def test_both_directions_are_shown_before_the_other_metrics(tmp_path: Path, check_page: CheckPage) -> None:
    names = ("text_to_image/recall@1", "text_to_image/recall@5", "image_to_text/recall@1")
    rows = [replace(ROW, metric=name, language="de") for name in names]
    text = _written(tmp_path, _Comparison(runs=["a", "b", "c"], rows=rows), check_page).text
    shown = ("text → image recall@1, %", "image → text recall@1, %", "Other metrics", "text → image recall@5, %")
    places = [text.index(words) for words in shown]
    assert places == sorted(places)
    assert "sets/colors · de" in text


def test_every_text_is_escaped(tmp_path: Path, check_page: CheckPage) -> None:
    nasty = replace(ROW, data=NASTY, language=NASTY, metric=NASTY)
    about = {NASTY: {NASTY: NASTY}}
    _written(tmp_path, _Comparison(runs=[NASTY, NASTY, NASTY], rows=[nasty], about=about), check_page)


def test_without_rows_it_says_so(tmp_path: Path, check_page: CheckPage) -> None:
    assert "No set was scored." in _written(tmp_path, _Comparison(runs=["a", "b"]), check_page).text


def _written(folder: Path, comparison: _Comparison, check_page: CheckPage) -> Outline:
    write_comparison(folder / "comparison.html", comparison)
    return check_page((folder / "comparison.html").read_text(encoding="utf-8"))
