"""The verb search: queries of every kind from the command line."""

import json
from pathlib import Path

import numpy as np
import pytest

from littune.store.writer import Row
from tests.evaluation.conftest import ColorReader, MakeStore, make_tower, paint
from tests.evaluation.conftest import make_store as make_store
from tests.test_cli import refused, run

KEYS = ("red", "green", "blue")


@pytest.fixture
def search(make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What comes after the query."""
    rows = [Row(key=key, source="by hand", fields={"size": len(key)}) for key in KEYS]
    store = make_store(rows, np.eye(3, dtype=np.float32))
    paint(tmp_path / "green.png", "green")
    monkeypatch.setattr("littune.model.lit.LiT.load", lambda *args, **settings: ColorReader(make_tower()))
    return ["--run", str(tmp_path), "--store", str(store.path)]


def found(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    code, out, err = run(capsys, "search", *arguments, "--json")
    assert code == 0, err
    return [hit["key"] for hit in json.loads(out)["hits"]]


def test_words_pictures_and_both(search: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = ["--image", str(tmp_path / "green.png")]
    assert found(capsys, "red", *search)[0] == "red"
    assert found(capsys, *image, *search)[0] == "green"
    assert found(capsys, "red", *image, "--weight", "0.1", *search)[0] == "red"
    assert found(capsys, "red", *image, "--weight", "0.9", *search)[0] == "green"
    assert found(capsys, "red green blue", "--without", "red", "--without", "blue", *search)[0] == "green"


def test_filters(search: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert found(capsys, "red", *search, "--where", "size=4") == ["blue"]
    assert sorted(found(capsys, "red", *search, "--where", "size=4", "--where", "size=5")) == ["blue", "green"]
    assert found(capsys, "red", *search, "--where", "size=4", "--where", "key=red") == []
    code, out, _ = run(capsys, "search", "red", *search, "-k", "1")
    assert (code, out) == (0, "1.000  red  by hand  \n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nowhere.jpg"], "the picture nowhere.jpg does not exist"),
        (["red", "--where", "size"], "--where size is not usable: write it as COLUMN=VALUE"),
        (["red", "--where", "height=1"], "no column 'height' to filter on; it has caption"),
        (["red", "--weight", "2"], "weight = 2.0"),
        (["red", "--without", " "], "what is not wanted is blank"),
        ([], "the words to search for are missing"),
    ],
)
def test_bad_input_is_one_line(
    search: list[str], arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, "search", *arguments, *search)
