"""Runs with ``--lora``: what is kept, what is locked, and that they go on as any run does."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from littune.base.distributed import ALONE
from littune.base.errors import InputError, MismatchError
from littune.config import TrainConfig
from littune.model.lit import LiT
from littune.towers.text.sources import load_text_tower
from littune.tuning import setup as run_setup
from littune.tuning import train as train_module
from littune.tuning.setup import set_up
from littune.tuning.train import fit
from tests.tuning.conftest import MakeStore

pytest.importorskip("peft", reason="the extra lora is not installed")


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def settings(make_store: MakeStore, tiny_text: str) -> dict[str, object]:
    store = make_store("a")
    return {
        "store": (str(store.path),),
        "text": tiny_text,
        "locking": "LU",
        "lora": 4,
        "batch_size": 16,
        "epochs": 2,
        "lr": 1e-2,
    }


def config_of(settings: dict[str, object], out: Path, **changes: object) -> TrainConfig:
    return TrainConfig(**(settings | changes), out=out)


def killed_at(step: int, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train up to a step, with a state after each."""
    take, calls = train_module.contrastive_step, 0

    def counted(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Killed
        return take(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(train_module, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(train_module, "SAVING_TIMES", 0)
        patch.setattr(train_module, "contrastive_step", counted)
        with pytest.raises(Killed):
            fit(config)


def test_the_base_stays_bit_by_bit_and_the_adapters_and_the_head_move(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = []
    monkeypatch.setattr(train_module, "merge_adapters", merged.append)
    base = load_text_tower(str(settings["text"]), max_tokens=32).state_dict()
    begun = {
        name: value.clone() for name, value in set_up(config_of(settings, tmp_path), ALONE).model.state_dict().items()
    }
    with pytest.raises(InputError):  # The tower that was not merged is no tower that can be loaded.
        fit(config_of(settings, tmp_path / "run"))
    ended = merged[0].state_dict()
    adapters = {name for name in ended if ".lora_" in name}
    plain = {name.replace(".base_layer", ""): value for name, value in ended.items() if name not in adapters}
    assert plain.keys() == base.keys() and all(torch.equal(plain[name], base[name]) for name in base)
    assert len(adapters) == 24 and not any(torch.equal(begun[f"text.{name}"], ended[name]) for name in adapters)


def test_the_run_s_tower_is_an_ordinary_one_that_others_begin_from(settings: dict[str, object], tmp_path: Path) -> None:
    model = fit(config_of(settings, tmp_path / "run"))
    saved = load_file(tmp_path / "run" / "text_tower" / "model.safetensors")
    base = load_text_tower(str(settings["text"]), max_tokens=32)
    assert saved.keys() == base.encoder.weights().keys()
    moved = {name for name, value in base.encoder.weights().items() if not torch.equal(saved[name], value)}
    assert len(moved) == 12 and all(name.endswith("weight") for name in moved)
    assert LiT.load(tmp_path / "run").text.identity == model.text.identity
    more = {"text": "", "from_run": str(tmp_path / "run")}
    again = fit(config_of(settings, tmp_path / "again", **more))
    plain = fit(config_of(settings, tmp_path / "plain", **more, lora=0, lr=1e-4))
    assert len({tower.text.identity for tower in (model, again, plain)}) == 3


@pytest.mark.parametrize("at", [2, 8])
def test_resume_equals_no_interruption_and_states_hold_no_base(
    at: int, settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(config_of(settings, tmp_path / "whole"))
    config = config_of(settings, tmp_path / "run")
    killed_at(at, config, monkeypatch)
    state = torch.load(sorted((tmp_path / "run" / "checkpoints").glob("*.pt"))[-1], weights_only=True)
    assert all(".lora_" in name or not name.startswith("text.") for name in state["weights"])
    fit(config)
    for file in ("model.safetensors", "text_tower/model.safetensors"):
        resumed, whole = load_file(tmp_path / "run" / file), load_file(tmp_path / "whole" / file)
        assert resumed.keys() == whole.keys() and all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_a_state_does_not_go_on_above_another_base(
    settings: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(settings, tmp_path / "run")
    killed_at(2, config, monkeypatch)
    load = run_setup.load_text_tower

    def changed(*args: object, **named: object) -> object:
        tower = load(*args, **named)
        with torch.no_grad():
            next(tower.parameters()).mul_(1.5)
        return tower

    monkeypatch.setattr(run_setup, "load_text_tower", changed)
    with pytest.raises(MismatchError, match="was begun on other data"):
        fit(config)


def test_adapters_and_heads_learn_as_new_weights_do(settings: dict[str, object], tmp_path: Path) -> None:
    config = config_of(settings, tmp_path, lr=None)
    assert config.learning_rate == 1e-3
    assert {group["lr_factor"] for group in set_up(config, ALONE).optimizer.param_groups} == {1.0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": -1}, "lora = -1 is not usable: it must be a rank of at least 1, or 0 for none"),
        ({"locking": "LL"}, "lora = 4 is not usable: it must be unset with --locking LL: .* --locking LU"),
        ({"locking": "Lu", "text": "scratch:Ti"}, "lora = 4 is not usable: it must be unset with --locking Lu"),
        ({"text": "scratch:Ti"}, "the text tower scratch:Ti does not go with --locking LU"),
    ],
)
def test_what_does_not_go_with_it(
    changes: dict[str, object], message: str, settings: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        fit(config_of(settings, tmp_path / "run", **changes))


def test_a_run_from_scratch_has_no_tower_for_adapters(settings: dict[str, object], tmp_path: Path) -> None:
    fit(config_of(settings, tmp_path / "one", text="scratch:Ti", locking="Lu", lora=0))
    with pytest.raises(InputError, match="lora = 4 needs a text tower of transformers"):
        fit(config_of(settings, tmp_path / "two", text="", from_run=str(tmp_path / "one")))
