"""Which examples are shown, and their pictures."""

import base64
import io
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from littune.evaluation.report.examples import (
    NUM_EXAMPLES,
    data_uri,
    found_first,
    furthest,
    pictures_of,
    surest,
    varied,
)
from littune.evaluation.results import RetrievalOutcome, ZeroShotOutcome
from littune.store.embed import embed
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.evaluation.conftest import COLORS, MakeStore, make_tower, paint


def test_pictures_come_from_where_they_were_embedded(class_folders: Path, tmp_path: Path) -> None:
    """Row 1 is green/b, which is painted yellow; row 3 red/b, which is blue."""
    store = embed(make_tower(), class_folders, tmp_path / "store")
    assert _colors(store, [1, 3]) == {1: COLORS["yellow"], 3: COLORS["blue"]}
    assert pictures_of(store, []) == {}


def test_a_large_picture_is_made_small(tmp_path: Path) -> None:
    Image.new("RGB", (800, 400), "red").save(_folder(tmp_path) / "a.png")
    store = embed(make_tower(), tmp_path / "set", tmp_path / "store")
    assert pictures_of(store, [0])[0].size == (160, 80)


def test_where_the_source_is_gone_there_is_no_picture(class_folders: Path, tmp_path: Path) -> None:
    store = embed(make_tower(), class_folders, tmp_path / "store")
    shutil.rmtree(class_folders)
    assert pictures_of(store, [0, 1]) == {}


def test_a_part_that_has_changed_gives_no_picture(class_folders: Path, tmp_path: Path) -> None:
    """Under the same key lies another picture now; the other folder is as it was."""
    store = embed(make_tower(), class_folders, tmp_path / "store")
    Image.new("RGB", (9, 9), "blue").save(class_folders / "green" / "a.png")
    assert list(pictures_of(store, [0, 2])) == [2]


def test_what_cannot_be_decoded_is_left_out(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = embed(make_tower(), class_folders, tmp_path / "store")

    def fail(image: bytes | Path) -> Image.Image:
        raise RuntimeError("a library's own")

    monkeypatch.setattr("littune.evaluation.report.examples.decode", fail)
    assert pictures_of(store, [0]) == {}


def test_class_directions_have_no_pictures(make_store: MakeStore) -> None:
    store = make_store([Row(key="a", source="s")], np.zeros((1, 3)), kind="prototypes")
    assert pictures_of(store, [0]) == {}


def test_a_store_whose_source_is_no_spec_has_none(make_store: MakeStore) -> None:
    store = make_store([Row(key="a", source="s")], np.zeros((1, 3)))
    assert pictures_of(store, [0]) == {}


def test_a_data_uri_is_a_jpeg() -> None:
    uri = data_uri(Image.new("RGB", (4, 3), "red"))
    kind, _, data = uri.partition(";base64,")
    assert kind == "data:image/jpeg"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (4, 3))


def test_the_surest_of_each_class_come_first(colors: ZeroShotOutcome) -> None:
    """Right: r0 (0.9), r1 (0.8), g0 (0.6). Wrong: b0 (0.95), r2 (0.7), g1 (0.5)."""
    assert surest(colors, right=True).tolist() == [0, 3, 1]
    assert surest(colors, right=False).tolist() == [5, 2, 4]


def test_texts_found_first_are_of_different_images(squares: RetrievalOutcome) -> None:
    assert found_first(squares).tolist() == [0]
    ranks = dict(squares.ranks) | {"text_to_image/recall": np.ones(4, np.int64)}
    assert found_first(replace(squares, ranks=ranks)).tolist() == []


def test_of_many_texts_found_first_some_are_taken_evenly(squares: RetrievalOutcome) -> None:
    num = 100
    many = RetrievalOutcome(
        keys=[str(number) for number in range(num)],
        rows=np.arange(num),
        captions=["text"] * num,
        owners=np.arange(num),
        ranks={"text_to_image/recall": np.zeros(num, np.int64)},
        top_images=np.zeros((num, 1), np.int64),
        top_texts=np.zeros((num, 1), np.int64),
    )
    assert found_first(many).tolist() == list(range(0, num, 9))


def test_what_is_furthest_down_comes_first() -> None:
    ranks, owners = np.array([5, 9, 8, 0, 1]), np.array([0, 1, 1, 2, 3])
    assert furthest(ranks, owners).tolist() == [1, 0, 4, 2]


def test_the_second_of_a_group_waits_for_the_first_of_the_others() -> None:
    groups = np.array([7, 7, 7, 8, 9])
    assert varied(np.arange(5), groups).tolist() == [0, 3, 4, 1, 2]
    assert len(varied(np.arange(50), np.zeros(50, np.int64))) == NUM_EXAMPLES
    assert varied(np.arange(0), groups).tolist() == []


def _folder(tmp_path: Path) -> Path:
    paint(tmp_path / "set" / "b" / "b.png", "green")
    (tmp_path / "set" / "a").mkdir()
    return tmp_path / "set" / "a"


def _colors(store: EmbeddingStore, rows: list[int]) -> dict[int, tuple[int, int, int]]:
    return {row: picture.getpixel((0, 0)) for row, picture in pictures_of(store, rows).items()}
