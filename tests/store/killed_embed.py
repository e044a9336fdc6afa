"""Run by test_embed in a process of its own: embeds slowly, and is killed (SIGKILL) until it gets through.

Each attempt is a fork of this process, so that torch is imported once. Prints how many attempts were killed.
"""

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from littune.store import writer
from littune.store.embed import embed
from tests.store.conftest import ListSource, MeanColor, make_tower, pair, source_of

_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Slow(MeanColor):
    def forward(self, pixels: Tensor) -> Tensor:
        time.sleep(0.01)
        return super().forward(pixels)


def source_with_bad_samples() -> ListSource:
    source = source_of(60, 20, 50)
    for part in source.all_parts:
        part.rows = [pair(n, part.name, image=b"") if n % 50 == 7 else row for n, row in _numbered(part.rows)]
    return source


def _numbered(rows):
    return [(int(row.key.removeprefix("k")), row) for row in rows]


def attempt(folder: Path, seconds: float) -> bool:
    """Embed in a child that is killed so many seconds behind its next commit; whether it was done before."""
    committed = _last_change(folder)
    child = os.fork()
    if child == 0:
        embed(make_tower(module=Slow()), source_with_bad_samples(), folder, batch_size=5)
        os._exit(0)
    # Waiting for a commit keeps the number of attempts small on a machine that is busy with other things.
    while _last_change(folder) == committed and os.waitid(os.P_PID, child, _HAS_ENDED) is None:
        time.sleep(0.001)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return not os.WIFSIGNALED(status)


def _last_change(folder: Path) -> int:
    manifest = folder / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.exists() else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    writer.ROWS_PER_COMMIT = 7
    with tempfile.TemporaryDirectory() as folder:
        # Whatever is imported or set up at first use comes before the forks.
        embed(make_tower(), source_of(1), folder)
    seconds = random.Random(int(sys.argv[2]))
    kills = 0
    while not attempt(Path(sys.argv[1]), seconds.uniform(0, 0.15)):
        kills += 1
    print(kills)
