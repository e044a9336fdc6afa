"""A store is known by littune's manifest, or by embeddings that lie where others put them; nothing else is one."""

import json
from pathlib import Path

import pytest

from littune.base.stores import foreign_embeddings, foreign_metadata, is_store

EMBEDDINGS = ("img_emb/img_emb_0.npy", "embeddings/pd12m.00.npy", "img_emb_0000.npy")
METADATA = ("metadata/metadata_0.parquet", "laion2B-en-metadata/metadata_0000.parquet", "metadata_0000.parquet")


def put(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_embeddings_of_others(tmp_path: Path, name: str) -> None:
    assert not is_store(tmp_path)
    path = put(tmp_path / name)
    assert is_store(tmp_path) and is_store(str(tmp_path))
    assert foreign_embeddings(tmp_path) == [path]


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_others(tmp_path: Path, name: str) -> None:
    path = put(tmp_path / name)
    assert foreign_metadata(tmp_path) == [path]
    assert not is_store(tmp_path)


def test_a_manifest_of_littune_s_makes_a_store_and_any_other_does_not(tmp_path: Path) -> None:
    put(tmp_path / "own" / "manifest.json", json.dumps({"format": "littune-store"}))
    put(tmp_path / "other" / "manifest.json", json.dumps({"format": "something else"}))
    put(tmp_path / "broken" / "manifest.json", "{")
    put(tmp_path / "broken and full" / "manifest.json", "{")
    put(tmp_path / "broken and full" / EMBEDDINGS[0])
    assert [is_store(tmp_path / name) for name in ("own", "other", "broken", "broken and full")] == [
        True,
        False,
        False,
        True,
    ]


def test_what_is_no_store(tmp_path: Path) -> None:
    put(tmp_path / "text_emb" / "text_emb_0.npy")
    (tmp_path / "img_emb").mkdir()
    assert not is_store(tmp_path)
    assert not is_store(tmp_path / "none")
    assert not is_store("shards/*.tar")
    assert not is_store("hf:name/of#split")
