"""What a run remembers for its card."""

from pathlib import Path

import pytest

from littune.apps.card.records import DATA, Source, keep_records, read_records
from littune.base.errors import InputError
from littune.base.files import read_json, write_json
from littune.config import TrainConfig
from littune.evaluation.evaluation import Evaluation
from littune.evaluation.results import Result
from littune.store.shards import Row
from tests.evaluation.conftest import MakeStore

EVALUATION = Evaluation(
    results=(Result(data="set", task="zero_shot", num_images=3, metrics={"accuracy@1": 0.5}),), about={"seconds": 1.0}
)


def test_stores_and_scores_are_kept(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store([Row(key="a", source="s", texts=("red",))], [[1.0, 0, 0]])
    gone = tmp_path / "gone"
    specs = (f"{store.path}:2:caption", f"{gone}")
    config = TrainConfig(store=specs, out=tmp_path / "run", text="scratch:Ti")
    config.save(config.out / "config.toml")
    keep_records(config, EVALUATION)
    records = read_records(config.out)
    of_store = Source(
        name=str(store.path),
        kind="images",
        rows=1,
        tower="mean-color",
        pairs="by hand",
        texts=("caption",),
        weight=2.0,
    )
    assert records.data == [of_store, Source(name=str(gone), kind="")]
    assert records.settings["text"] == "scratch:Ti"
    assert records.results == [{"data": "set", "task": "zero_shot", "num_images": 3, "metrics": {"accuracy@1": 0.5}}]
    assert records.cost == {}
    assert "seconds" not in (config.out / "scores.json").read_text()


def test_pairs_are_counted(pair_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(pairs=str(pair_folder), image="timm:x", texts="caption", out=tmp_path / "run", text="scratch")
    keep_records(config, None)
    assert read_records(config.out).data == [Source(name=str(pair_folder), kind="pixels", rows=4, texts=("caption",))]
    assert read_records(config.out).results == []


def test_pairs_that_are_gone_take_nothing_from_the_run(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    config = TrainConfig(pairs=str(gone), image="timm:x", texts="caption", out=tmp_path / "run", text="scratch")
    keep_records(config, None)
    assert read_records(config.out).data == [Source(name=str(gone), kind="", texts=("caption",))]


def test_a_model_of_no_run_remembers_nothing() -> None:
    records = read_records(None)
    assert (records.settings, records.cost, list(records.data), list(records.results)) == ({}, {}, [], [])


@pytest.mark.parametrize("damage", [{"name": "a"}, {"name": "a", "kind": "images", "texts": [], "rogue": 1}])
def test_damage_is_named(damage: dict[str, object], tmp_path: Path) -> None:
    write_json(tmp_path / DATA, {"trained_on": [damage]})
    assert read_json(tmp_path / DATA)
    with pytest.raises(InputError, match=r"data.json is damaged .*; delete it: only the card reads it"):
        read_records(tmp_path)
