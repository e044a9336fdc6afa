"""``littune.train``: the call of the README, with its scores."""

from pathlib import Path

import pytest

import littune as lt
from littune.apps.training import make_probe, run_training
from littune.base.distributed import Ranks
from littune.base.files import read_json
from littune.config import TrainConfig
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
    with pytest.raises(lt.LittuneError, match="no setting 'zzz'; those are allow_foreign, augment, "):
        lt.train(store, out=tmp_path / "other", text="scratch:Ti", zzz=3)


def test_a_probe_names_its_numbers_by_set(model: lt.LiT, make_store: MakeStore) -> None:
    store = make_store([Row(key="r", source="s", texts=("red",))], [[1.0, 0, 0]], name="mine")
    probe = make_probe((str(store.path),))
    assert probe is not None
    assert probe(model)["mine/text_to_image/recall@1"] == 1
    assert make_probe(()) is None


def test_a_finished_run_has_a_card_and_its_scores(make_store: MakeStore, tmp_path: Path) -> None:
    rows = [Row(key=str(n), source="s", texts=(f"number {n}",)) for n in range(4)]
    store = make_store(rows, [[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    settings = {"text": "scratch:Ti", "locking": "Lu", "epochs": 1, "val": (str(store.path),)}
    lt.train(store, out=tmp_path / "run", **settings)
    card = tmp_path / "run" / "README.md"
    assert "| `store` | retrieval | 4 | `text_to_image/recall@1` |" in card.read_text()
    assert "| `store` | images | 4 | `by hand` | `mean-color` |" in card.read_text()
    # What its owner wrote is left alone.
    card.write_text("mine")
    config = TrainConfig(store=(str(store.path),), out=tmp_path / "run", **settings)
    evaluation = run_training(config)
    assert evaluation is not None
    assert evaluation.to_dict()["results"] == read_json(tmp_path / "run" / "scores.json")["results"]
    assert card.read_text() == "mine"


def test_a_run_that_was_scored_on_nothing_has_a_card_too(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store([Row(key=str(n), source="s", texts=(f"{n}",)) for n in range(2)], [[1.0, 0, 0], [0, 1, 0]])
    config = TrainConfig(store=(str(store.path),), out=tmp_path / "run", text="scratch:Ti", locking="Lu", epochs=1)
    assert run_training(config) is None
    assert "It was scored on nothing when it was made" in (tmp_path / "run" / "README.md").read_text()
    assert not (tmp_path / "run" / "scores.json").exists()


def test_of_several_processes_the_first_writes_the_card(
    make_store: MakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store([Row(key=str(n), source="s", texts=(f"{n}",)) for n in range(2)], [[1.0, 0, 0], [0, 1, 0]])
    config = TrainConfig(store=(str(store.path),), out=tmp_path / "run", text="scratch:Ti", locking="Lu", epochs=1)
    monkeypatch.setattr("littune.apps.training.launched", lambda: Ranks(rank=1, size=2))
    assert run_training(config) is None
    lt.train(store, out=config.out, text="scratch:Ti", locking="Lu", epochs=1)
    assert not (tmp_path / "run" / "README.md").exists()
