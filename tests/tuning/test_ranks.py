"""Two processes under torchrun do what one does: gradients, a whole run, its evaluation."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from littune.config import TrainConfig
from littune.evaluation import evaluate
from littune.tuning import train as train_module
from littune.tuning.run.checkpoint import read_metrics
from littune.tuning.train import fit
from tests.tuning.conftest import MakeStore
from tests.tuning.ranked_step import gradients
from tests.tuning.test_lockings import config_of


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


def stored(make_store: MakeStore, text: str, out: Path, **changes: object) -> TrainConfig:
    settings: dict[str, object] = {"store": (str(make_store("a").path),), "text": text, "locking": "LU"}
    return TrainConfig(**(settings | {"out": out, "batch_size": 24, "epochs": 2, "lr": 1e-3} | changes))


@pytest.mark.parametrize("changes", [{}, {"loss": "sigmoid", "captions": "all"}, {"loss_parts": 2}], ids=str)
def test_two_ranks_give_the_gradients_of_one(
    changes: dict[str, object], make_store: MakeStore, tiny_text: str, tmp_path: Path
) -> None:
    check_same_gradients(stored(make_store, tiny_text, tmp_path / "run", **changes), tmp_path)


def test_two_ranks_give_the_gradients_of_one_on_pixels(
    pictures: Path, tiny_image: str, tiny_text: str, tmp_path: Path
) -> None:
    config = config_of(
        "UU", pictures, tiny_image, tiny_text, tmp_path / "run", augment="inception", flip=True, heads="both"
    )
    check_same_gradients(config, tmp_path)


def check_same_gradients(config: TrainConfig, folder: Path) -> None:
    loss, expected, _ = gradients(config)
    config.save(folder / "config.toml")
    torchrun(str(Path(__file__).with_name("ranked_step.py")), str(folder / "config.toml"), str(folder / "two.pt"))
    two = torch.load(folder / "two.pt", weights_only=True)
    assert two["loss"] == pytest.approx(loss, rel=1e-6)
    assert two["gradients"].keys() == expected.keys()
    # A gradient that is 0 in exact arithmetic (a key's bias) is compared on the scale of all of them.
    scale = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        error = (two["gradients"][name] - gradient).norm()
        assert error <= 1e-6 * gradient.norm() + 1e-7 * scale, name


@pytest.mark.parametrize("locking", ["LL", "LU"])
def test_a_run_of_two_ranks_is_that_of_one_and_scores_alike(
    locking: str, make_store: MakeStore, tiny_text: str, tmp_path: Path
) -> None:
    alone = stored(make_store, tiny_text, tmp_path / "alone", locking=locking)
    val = ("--val", alone.store[0])
    arguments = ["--store", alone.store[0], "--text", tiny_text, "--locking", locking, "--batch-size", "24"]
    arguments += ["--epochs", "2", "--lr", "1e-3", "--out", str(tmp_path / "two"), *val, "--json"]
    done = torchrun("-m", "littune", "train", *arguments)
    (of_two,) = json.loads(done.stdout)["results"]  # of two processes, one prints
    model = fit(alone)
    again = fit(replace(alone, out=tmp_path / "two", val=val[1:]))  # finished: it is loaded
    texts = ["a red dog", "something", "the old tree"]
    assert abs(model.encode_text(texts) - again.encode_text(texts)).max() < 1e-4
    of_one = evaluate(model, alone.store[0]).results[0].metrics
    assert of_two["metrics"] == pytest.approx(dict(of_one), abs=1 / 80)
    steps = [record["step"] for record in read_metrics(tmp_path / "two") if "loss" in record]
    assert steps == list(range(1, steps[-1] + 1))


def test_a_run_that_one_process_began_goes_on_with_two(
    make_store: MakeStore, tiny_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = stored(make_store, tiny_text, tmp_path / "both")
    alone = fit(replace(config, out=tmp_path / "alone"))
    step = train_module.contrastive_step

    def stopped(*args: object, **named: object) -> object:
        if named["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*args, **named)

    monkeypatch.setattr(train_module, "contrastive_step", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(config)
    done = torchrun("-m", "littune", "train", "--config", str(config.out / "config.toml"))
    assert "goes on from step 4 of 7" in done.stderr
    texts = ["a red dog", "something", "the old tree"]
    assert abs(alone.encode_text(texts) - fit(config).encode_text(texts)).max() < 1e-4
