"""``littune.train``: the call of the README, with its scores."""

from pathlib import Path

import pytest

import littune as lt
from littune.apps.training import make_probe
from littune.store.shards import Row
from tests.evaluation.conftest import MakeStore


def test_stores_or_their_specs_train_and_are_scored(make_store: MakeStore, tmp_path: Path) -> None:
    rows = [Row(key=str(n), source="s", texts=(f"number {n}",)) for n in range(4)]
    store = make_store(rows, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    settings = {"text": "scratch:Ti", "locking": "Lu", "epochs": 1, "val": (str(store.path),)}
    model = lt.train(store, out=tmp_path / "run", **settings)
    again = lt.train([f"{store.path}"], out=str(tmp_path / "run"), **settings)
    assert (model.encode_text("number 1") == again.encode_text("number 1")).all()
    with pytest.raises(lt.LittuneError, match="train has no setting 'epoks'; did you mean 'epochs'?"):
        lt.train(store, out=tmp_path / "other", text="scratch:Ti", epoks=3)
    with pytest.raises(lt.LittuneError, match="no setting 'zzz'; those are augment, batch_size, "):
        lt.train(store, out=tmp_path / "other", text="scratch:Ti", zzz=3)


def test_a_probe_names_its_numbers_by_set(model: lt.LiT, make_store: MakeStore) -> None:
    store = make_store([Row(key="r", source="s", texts=("red",))], [[1.0, 0, 0]], name="mine")
    probe = make_probe((str(store.path),))
    assert probe is not None
    assert probe(model)["mine/text_to_image/recall@1"] == 1
    assert make_probe(()) is None
