"""Evaluation sets: what is embedded, what is found in the cache, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from littune.base.errors import InputError, MismatchError
from littune.base.files import littune_cache
from littune.evaluation.sets import stores
from littune.evaluation.sets.stores import open_set, project
from littune.store.store import EmbeddingStore
from littune.store.writer import Row
from tests.evaluation.conftest import ColorReader, MakeStore, make_tower, paint

ROWS = [Row(key=str(number), source="a", texts=("red",)) for number in range(3)]
EMBEDDINGS = np.array([[1.0, 0.5, 0.5], [0.5, 1.0, 0.5], [0.75, 0.75, 0.5]])


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LITTUNE_CACHE", str(tmp_path / "here"))
    assert littune_cache() == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in (lambda: monkeypatch.setenv("LITTUNE_CACHE", ""), lambda: monkeypatch.delenv("LITTUNE_CACHE")):
        unset()
        assert littune_cache() == tmp_path / ".cache" / "littune"


def test_pairs_are_embedded_once(monkeypatch: pytest.MonkeyPatch, model: ColorReader, pair_folder: Path) -> None:
    first = open_set(model, str(pair_folder))
    assert first.path.parent == littune_cache() / "stores"
    assert first.num_rows == 4

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("embedded again")

    monkeypatch.setattr(stores, "embed", refuse)
    # A model that is only read needs no tower.
    model._image_tower = None
    again = open_set(model, f"{pair_folder}/")  # however it is spelled
    assert again.path == first.path
    assert np.array_equal(again.embeddings(), first.embeddings())


def test_changed_pictures_another_tower_and_other_texts_are_embedded_anew(
    model: ColorReader, pair_folder: Path
) -> None:
    table = pair_folder / "table.csv"
    table.write_text("image,caption,german\na.png,red,rot\nb.png,green,grün\n", encoding="utf-8")
    before = open_set(model, str(table))
    german = open_set(model, str(table), texts=["german"])
    other = open_set(ColorReader(make_tower(2.0)), str(table))
    larger = open_set(ColorReader(make_tower(size=16)), str(table))
    table.write_text("image,caption,german\na.png,scarlet,rot\nb.png,green,grün\n", encoding="utf-8")
    after = open_set(model, str(table))
    assert len({store.path for store in (before, german, other, larger, after)}) == 5
    assert [store.texts()[0] for store in (before, german, after)] == [("red",), ("rot",), ("scarlet",)]


def test_an_interrupted_embedding_goes_on(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, pair_folder: Path
) -> None:
    whole = open_set(model, str(pair_folder)).embeddings()
    shutil.rmtree(littune_cache())
    tower = model.image_tower
    encode, calls = tower.encode, []

    def stop_at_the_third(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(pixels)

    monkeypatch.setattr(tower, "encode", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        open_set(model, str(pair_folder), batch_size=1)
    # The third picture is tried again, the first two are not.
    assert np.array_equal(open_set(model, str(pair_folder), batch_size=1).embeddings(), whole)
    assert len(calls) == 5


def test_a_model_that_saw_no_picture_takes_the_towers_preprocessing(model: ColorReader, pair_folder: Path) -> None:
    tower = model.image_tower
    identity = type(tower.identity).from_dict(tower.identity.to_dict() | {"preprocess": ""})
    prototypes_only = ColorReader(tower)
    prototypes_only.reference = type(model.reference)(spec=tower.spec, pooling=tower.pooling, identity=identity)
    assert open_set(prototypes_only, str(pair_folder)).path == open_set(model, str(pair_folder)).path


def test_a_store_is_opened_by_its_folder_or_as_it_is(model: ColorReader, make_store: MakeStore) -> None:
    store = make_store(ROWS, EMBEDDINGS)
    assert open_set(model, store) is store
    assert open_set(model, store.path).num_rows == open_set(model, str(store.path)).num_rows == 3


def test_a_store_of_another_tower_is_refused(model: ColorReader, make_store: MakeStore) -> None:
    store = make_store(ROWS, EMBEDDINGS, tower=make_tower(2.0))
    with pytest.raises(MismatchError) as error:
        open_set(model, store)
    assert str(store.path) in str(error.value) and "weights" in str(error.value)


def test_a_foreign_store_needs_leave(model: ColorReader, make_store: MakeStore, tmp_path: Path) -> None:
    made = make_store(ROWS, EMBEDDINGS)
    (made.path / "manifest.json").unlink()
    with pytest.raises(InputError, match=f"{made.path}.*foreign"):
        open_set(model, made.path)
    with pytest.raises(MismatchError, match="does not say which image tower"):
        open_set(model, EmbeddingStore.open(made.path, allow_foreign=True))
    assert open_set(model, made.path, allow_foreign=True).num_rows == 3
    wide = tmp_path / "wide"
    shutil.copytree(made.path, wide)
    np.save(wide / "img_emb" / "img_emb_0000.npy", np.zeros((3, 4), np.float16))
    with pytest.raises(MismatchError, match="4-d"):
        open_set(model, wide, allow_foreign=True)


def test_an_unfinished_store_and_an_empty_one_are_refused(model: ColorReader, make_store: MakeStore) -> None:
    with pytest.raises(InputError, match=r"unfinished \(3 rows so far\)"):
        open_set(model, make_store(ROWS, EMBEDDINGS, finish=False))
    with pytest.raises(InputError, match="no usable image"):
        open_set(model, make_store([], np.zeros((0, 3)), name="empty"))


def test_pictures_that_nobody_can_read_are_refused(model: ColorReader, tmp_path: Path) -> None:
    paint(tmp_path / "bad" / "x" / "a.png", "red")
    (tmp_path / "bad" / "x" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError):
        open_set(model, str(tmp_path / "bad"))


def test_rows_are_projected_in_order_block_by_block(
    monkeypatch: pytest.MonkeyPatch, model: ColorReader, make_store: MakeStore
) -> None:
    monkeypatch.setattr(stores, "_BLOCK", 2)
    blocks = list(project(model, make_store(ROWS, EMBEDDINGS)))
    assert [len(block) for block in blocks] == [2, 1]
    np.testing.assert_allclose(np.concatenate(blocks), [[1, 0, 0], [0, 1, 0], [0.5**0.5, 0.5**0.5, 0]], atol=1e-6)


def test_class_directions_are_centred_by_their_own_mean(model: ColorReader, make_store: MakeStore) -> None:
    store = make_store(ROWS[:2], np.array([[7.0, 2.0, 1.0], [5.0, 2.0, 1.0]]), kind="prototypes")
    np.testing.assert_allclose(np.concatenate(list(project(model, store))), [[1, 0, 0], [-1, 0, 0]], atol=1e-6)
    # A model that does not centre images does not centre directions either.
    model.center.zero_()
    np.testing.assert_allclose(np.concatenate(list(project(model, store)))[0], np.array([7, 2, 1]) / 54**0.5, atol=1e-6)
