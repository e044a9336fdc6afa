"""The demo, stage by stage, and (slow) from end to end with the real packages."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from littune.apps.demo import StageClock, choose_left_out, run_demo, score_photos, scores_table
from littune.apps.demo_page import PhotoResult, ScoreRow
from littune.apps.demo_pictures import LABELS, PHOTOS
from littune.base.errors import InputError
from littune.tuning.run.checkpoint import read_metrics
from tests.apps.test_demo_page import check_self_contained


def test_a_tenth_of_the_classes_is_left_out_and_always_the_same() -> None:
    left_out = choose_left_out(1000)
    assert len(left_out) == 100 and left_out == choose_left_out(1000)
    assert left_out <= set(range(1000)) and left_out != frozenset(range(100))


def test_the_clock_keeps_the_time_of_what_is_not_done_again(tmp_path: Path) -> None:
    path = tmp_path / "work" / "seconds.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"train": 30.0, "score": 0.0}))
    clock = StageClock(path)
    for name in ("train", "score"):
        with clock.stage(name):
            pass
    assert clock.seconds["train"] == 30.0 and 0 < clock.seconds["score"] < 1
    assert json.loads(path.read_text()) == clock.seconds


def test_a_stage_that_fails_leaves_no_time(tmp_path: Path) -> None:
    clock = StageClock(tmp_path / "seconds.json")
    with pytest.raises(RuntimeError), clock.stage("train"):
        raise RuntimeError
    assert clock.seconds == {} and not (tmp_path / "seconds.json").exists()


def test_photographs_are_scored_by_the_place_of_their_label() -> None:
    first, second = PHOTOS[:2]
    results = [
        PhotoResult(photo=first, path=Path(), scores=[(first.label, 0.6), (second.label, 0.4)]),
        PhotoResult(photo=second, path=Path(), scores=[(first.label, 0.6), (second.label, 0.4)]),
    ]
    row = score_photos(results)
    assert (row.num_questions, row.num_answers) == (2, len(LABELS))
    assert row.hits == {1: 0.5, 5: 1.0, 10: 1.0}


def test_the_table_shows_percents_and_chance() -> None:
    console = Console(file=io.StringIO(), width=120)
    row = ScoreRow(task="name → it", num_questions=3, num_answers=200, hits={1: 0.25, 5: 0.5, 10: 1.0})
    console.print(scores_table([row]))
    file = console.file
    assert isinstance(file, io.StringIO)
    text = file.getvalue()
    assert all(cell in text for cell in ("name → it", "25 (0.5)", "50 (2.5)", "100 (5.0)"))


def test_an_unknown_image_tower_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="package:efficientnet-lite9"):
        run_demo(tmp_path, image="package:efficientnet-lite9")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_demo_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_demo(tmp_path, image="package:efficientnet-lite0")
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    check_self_contained(page)
    with Image.open(tmp_path / "demo.png") as sheet:
        assert np.asarray(sheet).std() > 10
    first = capsys.readouterr()
    assert "left-out class" in first.out

    scores = _scores(page)
    assert scores["left-out class → its name, among all names"][1] > 20
    assert scores["left-out class → its name, among the left-out"][0] > 25
    assert scores["photograph → its label, with 12 wrong ones"][1] > 45
    assert scores["name → its drawing"][2] > 7

    # Again: nothing is trained, rendered or embedded anew, and the scores are the same.
    work = next((tmp_path / "work").iterdir())
    kept = {path: path.stat().st_mtime_ns for path in work.rglob("[!.]*.*") if path.name != "seconds.json"}
    assert len(kept) > 900
    run_demo(tmp_path, image="package:efficientnet-lite0")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert _scores((tmp_path / "index.html").read_text(encoding="utf-8")) == scores
    assert _seconds(capsys.readouterr().err) < _seconds(first.err)
    assert read_metrics(work / "run")


def _seconds(said: str) -> int:
    """How long the demo says that it took."""
    return int(said.split(" s in all; ")[0].split()[-1])


def _scores(page: str) -> dict[str, list[float]]:
    """The percents of the page's score table, by task."""
    rows = page.split("<tbody>")[1].split("</tbody>")[0].split("</tr>")
    named = (row.split('<th scope="row">')[1].split("</th>") for row in rows if "<th" in row)
    return {task: [float(cell.split("</b>")[0]) for cell in cells.split("<b>")[1:]] for task, cells in named}
