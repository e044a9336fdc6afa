"""Run by test_embed in a process of its own: embeds, and is killed (SIGKILL) until it gets through.

    killed_embed.py OUT small|ranks|PAIRS

Each attempt is a fork of this process, so that torch is imported and the tower loaded once; with "ranks", it is one to
three forks that embed together, of which one is killed before the rest. Prints how many attempts were killed.
"""

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from littune.base.distributed import Ranks
from littune.pairs import open_pairs
from littune.store import writer
from littune.store.embed import embed
from littune.towers.image.sources import load_image_tower
from tests.store.conftest import ListSource, MeanColor, make_tower, pair, source_of

# Short enough that a quick machine, too, is killed several times before it gets through.
LONGEST = 0.15

_HAS_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


class Slow(MeanColor):
    def forward(self, pixels: Tensor) -> Tensor:
        time.sleep(0.01)
        return super().forward(pixels)


Job = Callable[[], object]


def small_jobs(folder: Path) -> Iterator[list[Job]]:
    writer.ROWS_PER_COMMIT = 7
    source, tower = source_with_bad_samples(), make_tower(module=Slow())
    while True:
        yield [lambda: embed(tower, source, folder, batch_size=5)]


def ranked_jobs(folder: Path) -> Iterator[list[Job]]:
    writer.ROWS_PER_COMMIT = 7
    source, tower, sizes = source_with_bad_samples(), make_tower(module=Slow()), random.Random(0)

    def job(ranks: Ranks) -> Job:
        return lambda: embed(tower, source, folder, batch_size=5, ranks=ranks)

    while True:
        size = sizes.randint(1, 3)
        yield [job(Ranks(rank=rank, size=size)) for rank in range(size)]


def real_jobs(folder: Path, pairs: str) -> Iterator[list[Job]]:
    writer.ROWS_PER_COMMIT = 8
    source, tower = open_pairs(pairs), load_image_tower("package:efficientnet-lite0")
    while True:
        yield [lambda: embed(tower, source, folder, batch_size=4)]


def source_with_bad_samples() -> ListSource:
    source = source_of(60, 20, 50)
    for part in source.all_parts:
        numbered = [(int(row.key.removeprefix("k")), row) for row in part.rows]
        part.rows = [pair(n, part.name, image=b"") if n % 50 == 7 else row for n, row in numbered]
    return source


def attempt(jobs: Sequence[Job], folder: Path, seconds: float) -> bool:
    """Run the jobs in children that are killed so many seconds behind the next commit; whether all were done before."""
    committed = last_change(folder)
    children = [child_of(job) for job in jobs]
    # Waiting for a commit keeps the number of attempts small on a machine that is busy with other things.
    while last_change(folder) == committed and os.waitid(os.P_PID, children[0], _HAS_ENDED) is None:
        time.sleep(0.001)
    time.sleep(seconds)
    ends = []
    for child in children[::-1]:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
        ends.append(os.WIFSIGNALED(status))
    return not any(ends)


def child_of(job: Job) -> int:
    child = os.fork()
    if child == 0:
        job()
        os._exit(0)
    return child


def last_change(folder: Path) -> int:
    manifest = folder / "manifest.json"
    return manifest.stat().st_mtime_ns if manifest.exists() else 0


def main(folder: Path, pairs: str) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as other:
        # Whatever is imported or set up at first use comes before the forks.
        embed(make_tower(), source_of(1), other)
    named = {"small": small_jobs, "ranks": ranked_jobs}
    jobs = named[pairs](folder) if pairs in named else real_jobs(folder, pairs)
    seconds = random.Random(0)
    kills = 0
    while not attempt(next(jobs), folder, seconds.uniform(0, LONGEST)):
        kills += 1
    print(kills)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
