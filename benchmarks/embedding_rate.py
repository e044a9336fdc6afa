"""How close `littune embed` comes to what its image tower can do alone.

    LITTUNE_DATA=… python benchmarks/embedding_rate.py [--image package:efficientnet-lite2] [--json]

In each round the tower first encodes batches of ready pixels, then the same pictures are embedded from their tar
shards into a fresh store, commits included. The two alternate, so that what else the machine is doing hits both.
The share compares their best rounds, as other work on the machine only ever slows a round down; the median of the
rounds' own shares stands beside it. The tower's batch size is the best of those tried at the start. On a machine
that others use too, OMP_WAIT_POLICY=passive keeps waiting threads from burning the cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from littune.base.memory import keep_freed_memory
from littune.base.progress import log
from littune.pairs import open_pairs
from littune.pairs.base import Sample, Source
from littune.pairs.decode import decode
from littune.store.embed import embed
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower

DATA = Path(os.environ.get("LITTUNE_DATA", Path(__file__).parents[2] / "shared" / "data"))
BATCH_SIZES = (8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a piece of work took."""

    images: int
    seconds: float
    cpu_seconds: float

    @property
    def rate(self) -> float:
        return self.images / self.seconds


@dataclass(frozen=True, kw_only=True)
class Result:
    """The table's line."""

    image: str
    precision: str
    threads: int
    images: int
    rounds: int
    tower_batch_size: int
    tower_images_per_second: float
    embed_images_per_second: float
    share: float
    """Embed's rate over the tower's, each in its best round."""
    median_share: float
    """The median of the rounds' own shares."""
    cpu_share: float
    """The tower's processor seconds over embed's, each in its best round: the share if no core ever idled."""


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    keep_freed_memory()  # as embed does
    results = []
    for image in options.image:
        tower = load_image_tower(image, precision=options.precision)
        results.append(measure(tower, open_pairs(options.pairs), rounds=options.rounds, workers=options.workers))
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        _print_table(results)


def measure(tower: ImageTower, pairs: Source, *, rounds: int, workers: int) -> Result:
    """Alternate the two for so many rounds."""
    pixels = _all_pixels(tower, pairs)
    batch_size = _best_batch_size(tower, pixels)
    alone, embedded = [], []
    for number in range(rounds):
        alone.append(_timed(len(pixels), partial(_encode, tower, pixels, batch_size)))
        embedded.append(_timed(len(pixels), partial(_embed, tower, pairs, workers)))
        log(f"round {number + 1}: tower {alone[-1].rate:.1f}, embed {embedded[-1].rate:.1f} images/s")
    best_alone, best_embedded = (max(paces, key=lambda pace: pace.rate) for paces in (alone, embedded))
    return Result(
        image=tower.spec,
        precision=tower.precision,
        threads=torch.get_num_threads(),
        images=len(pixels),
        rounds=rounds,
        tower_batch_size=batch_size,
        tower_images_per_second=best_alone.rate,
        embed_images_per_second=best_embedded.rate,
        share=best_embedded.rate / best_alone.rate,
        median_share=statistics.median(both.rate / one.rate for one, both in zip(alone, embedded, strict=True)),
        cpu_share=best_alone.cpu_seconds / best_embedded.cpu_seconds,
    )


def _all_pixels(tower: ImageTower, pairs: Source) -> UInt8[Tensor, "n 3 h w"]:
    samples = [sample for part in pairs.parts() for sample in part.samples() if isinstance(sample, Sample)]
    ready = [tower.preprocess(decode(sample.image)).permute(1, 2, 0) for sample in samples]
    return torch.stack(ready).permute(0, 3, 1, 2)


def _best_batch_size(tower: ImageTower, pixels: UInt8[Tensor, "n 3 h w"]) -> int:
    """Tried twice each, in turn, on a part of the pictures; the first turn warms up."""
    some = pixels[:128]
    turns = [{size: _timed(len(some), partial(_encode, tower, some, size)).rate for size in BATCH_SIZES} for _ in "123"]
    best = {size: max(turn[size] for turn in turns[1:]) for size in BATCH_SIZES}
    log("tower alone: " + ", ".join(f"batch {size}: {rate:.1f}" for size, rate in best.items()) + " images/s")
    return max(best, key=lambda size: best[size])


def _encode(tower: ImageTower, pixels: UInt8[Tensor, "n 3 h w"], batch_size: int) -> None:
    for start in range(0, len(pixels), batch_size):
        tower.encode(pixels[start : start + batch_size])


def _embed(tower: ImageTower, pairs: Source, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        embed(tower, pairs, folder, workers=workers)


def _timed(images: int, work: Callable[[], None]) -> Pace:
    started, cpu_started = time.perf_counter(), time.process_time()
    work()
    return Pace(images=images, seconds=time.perf_counter() - started, cpu_seconds=time.process_time() - cpu_started)


def _print_table(results: Sequence[Result]) -> None:
    print(
        "| image tower | precision | threads | alone, images/s | embed, images/s | share | median share | CPU share |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for it in results:
        print(
            f"| {it.image} | {it.precision} | {it.threads} | {it.tower_images_per_second:.1f} "
            f"(batch {it.tower_batch_size}) | {it.embed_images_per_second:.1f} "
            f"| {it.share:.1%} | {it.median_share:.1%} | {it.cpu_share:.1%} |"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image", nargs="+", default=["package:efficientnet-lite0", "package:efficientnet-lite2"], help="towers")
    add("--pairs", default=str(DATA / "flickr8k-1k" / "*.tar"), help="what to embed")
    add("--precision", default="auto", help="auto, float32 or bfloat16")
    add("--threads", type=int, default=torch.get_num_threads(), help="threads of the tower")
    add("--workers", type=int, default=2, help="threads that decode")
    add("--rounds", type=int, default=5)
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
