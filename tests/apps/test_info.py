"""What a path or spec is, said rightly for each kind."""

from pathlib import Path

import pytest

from littune.apps.info import describe, to_text
from littune.base.errors import InputError
from littune.store.shards import Row
from tests.evaluation.conftest import MakeStore


def test_a_store(make_store: MakeStore) -> None:
    store = make_store([Row(key="a", source="s", texts=("x",))], [[1.0, 0.0, 0.0]], finish=False)
    about = describe(str(store.path))
    assert (about["kind"], about["rows"], about["dimensions"], about["complete"]) == ("store", 1, 3, False)

    assert about["image tower"] == store.manifest.settings.tower


def test_what_it_looks_like() -> None:
    about = {
        "kind": "store",
        "complete": True,
        "identity": {"dim": 3, "deeper": {"a": None}},
        "none": [],
        "no": {},
        "blank": "",
    }
    lines = ["kind: store", "complete: yes", "identity:", "  dim: 3", "  deeper:", "    a: unknown", "classes: x, y"]
    assert to_text(about | {"classes": ["x", "y"]}).split("\n") == lines


def test_pairs(pair_folder: Path) -> None:
    about = describe(str(pair_folder))
    assert (about["kind"], about["rows"], about["classes"]) == ("pairs", 4, [])


def test_towers() -> None:
    image = describe("package:efficientnet-lite0")
    assert (image["kind"], image["dimensions"], image["classes"]) == ("image tower", 1280, 1000)
    text = describe("package:minilm")
    assert (text["kind"], text["dimensions"], text["pooling"]) == ("text tower", 384, "mean")


def test_a_folder_of_transformers_that_is_no_tower(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"is no tower: as an image tower, .* as a text tower, "):
        describe(f"hf:{tmp_path}")
