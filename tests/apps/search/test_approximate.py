"""FAISS finds nearly what exact search finds, with its very scores; an index serves its image side and no other."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from littune.apps.search import Index, approximate
from littune.apps.search.approximate import INDEX, MANIFEST, open_approximate
from littune.apps.search.building import build_index
from littune.apps.search.exact import ExactRows
from littune.base.errors import InputError, MismatchError, MissingExtraError
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.apps.search.conftest import DIM, Drawn, drawn, write_store

pytest.importorskip("faiss", reason="the extra faiss is not installed")
NUM = 10_200


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingStore:
    rows = [Row(key=str(n), source="a", texts=(f"text {n}",), label=n % 40) for n in range(NUM)]
    embeddings = 2 * drawn(60)[np.arange(NUM) % 60] + drawn(NUM, seed=1)  # like images, they come in groups
    return write_store(tmp_path_factory.mktemp("many") / "store", embeddings, rows, shard=4000)


@pytest.fixture(scope="module", params=["hnsw", "ivfpq"])
def index(request: pytest.FixtureRequest, many: EmbeddingStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("index") / request.param
    built = build_index(Drawn(), many, out, kind=request.param)
    assert (built.kind, built.rows, built.new) == (request.param, NUM, True)
    assert built.recall > 0.9 and "100 of its captions" in built.to_text()
    return out


def test_scores_are_those_of_exact_search(index: Path, many: EmbeddingStore, reader: Drawn) -> None:
    queries = reader.encode_text([f"query {number}" for number in range(20)])
    exact = ExactRows(reader, many).find(queries, 10)
    scores, rows = open_approximate(reader, many, index).find(queries, 10)
    shared = rows[:, :, None] == exact[1][:, None, :]
    assert shared.any(axis=2).mean() > 0.9
    for query, mine, its in np.argwhere(shared):
        assert scores[query, mine] == pytest.approx(exact[0][query, its], abs=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("few", [0, approximate._FEW])
def test_filters_let_nothing_else_through(
    few: int, index: Path, many: EmbeddingStore, reader: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(approximate, "_FEW", few)
    monkeypatch.setattr(approximate, "_SMALL", 0)
    exact, nearly = Index(reader, many), Index(reader, many, index=index)
    found = nearly.search("query", k=20, where={"label": [3, 17]})
    expected = exact.search("query", k=20, where={"label": [3, 17]})
    assert all(int(hit.key) % 40 in (3, 17) for hit in found)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert len({hit.key for hit in found} & {hit.key for hit in expected}) >= (17 if few == 0 else 20)
    # Fewer than are asked for are all found, however few the index names.
    one = nearly.search("query", k=20, where={"key": ["5", "77"]})
    assert sorted(hit.key for hit in one) == ["5", "77"]


def test_more_than_the_index_names_is_gone_through_exactly(index: Path, many: EmbeddingStore, reader: Drawn) -> None:
    query = reader.encode_text("query")
    found, expected = (
        rows.find(query, NUM) for rows in (open_approximate(reader, many, index), ExactRows(reader, many))
    )
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert sorted(found[1][0]) == list(range(NUM))


def test_the_store_is_found_by_the_index_alone(index: Path, many: EmbeddingStore, reader: Drawn) -> None:
    assert Index(reader, index=index).search("query") == Index(reader, many, index=str(index)).search("query")
    with pytest.raises(InputError, match="nothing to search"):
        Index(reader)


def test_another_text_tower_needs_no_new_index(
    index: Path, many: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained = Drawn()
    monkeypatch.setattr(retrained, "encode_text", lambda texts: Drawn().encode_text([text * 2 for text in texts]))
    assert len(Index(retrained, many, index=index).search("query")) == 5


def test_another_image_side_does(index: Path, many: EmbeddingStore) -> None:
    torch.manual_seed(0)
    with pytest.raises(MismatchError, match="index of another run, with another centre; make one"):
        Index(Drawn(center=0.2), many, index=index)
    with pytest.raises(MismatchError, match="with another image head"):
        Index(Drawn(image_head=nn.Linear(DIM, DIM)), many, index=index)


def test_a_store_that_changed(index: Path, reader: Drawn, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="is not what the index .* was made of, or has changed since"):
        Index(reader, write_store(tmp_path / "other", drawn(50, seed=1)), index=index)


def test_the_same_command_again_and_other_ones(index: Path, many: EmbeddingStore, reader: Drawn) -> None:
    again = build_index(reader, many.path, index, kind=index.name)
    assert not again.new and again.to_text().startswith("there already: ")
    with pytest.raises(MismatchError, match=r"holds another index \(its kind differ"):
        build_index(reader, many, index, kind={"hnsw": "ivfpq", "ivfpq": "hnsw"}[index.name])
    with pytest.raises(MismatchError, match="its image_side differ"):
        build_index(Drawn(center=0.3), many, index, kind=index.name)


def test_without_captions_images_are_the_queries(tmp_path: Path, reader: Drawn) -> None:
    store = write_store(tmp_path / "store", drawn(7), [Row(key=str(n), source="a") for n in range(7)])
    built = build_index(reader, store, tmp_path / "index")
    assert (built.recall, built.queries) == (1.0, "for 7 of its images")


def test_folders_that_are_no_index(drawn_store: EmbeddingStore, reader: Drawn, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the index .*nowhere does not exist; make it with: littune index"):
        Index(reader, drawn_store, index=tmp_path / "nowhere")
    with pytest.raises(InputError, match="is no index"):
        Index(reader, drawn_store, index=drawn_store.path)
    with pytest.raises(InputError, match="holds other things than an index"):
        build_index(reader, drawn_store, drawn_store.path)
    with pytest.raises(InputError, match="no kind of index called 'tree'; choose hnsw or ivfpq"):
        build_index(reader, drawn_store, tmp_path / "index", kind="tree")
    with pytest.raises(InputError, match="ivfpq needs at least 10,000 rows.* there are 100; take --kind hnsw"):
        build_index(reader, drawn_store, tmp_path / "index", kind="ivfpq")
    out = tmp_path / "index"
    out.mkdir()
    for left_behind in (".lock", INDEX):
        (out / left_behind).touch()
    build_index(reader, drawn_store, out)
    (out / INDEX).write_bytes(b"cut short")
    with pytest.raises(InputError, match=f"{out / INDEX} is damaged"):
        Index(reader, drawn_store, index=out)
    about = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps(about | {"version": 99}))
    with pytest.raises(InputError, match="make it anew"):
        Index(reader, drawn_store, index=out)
    (out / MANIFEST).write_text(json.dumps(about | {"image_side": None}))
    with pytest.raises(InputError, match="does not say which run it is of"):
        Index(reader, drawn_store, index=out)


def test_without_the_extra(
    drawn_store: EmbeddingStore, reader: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"an approximate index needs .*littune\[faiss\]"):
        build_index(reader, drawn_store, tmp_path / "index")
