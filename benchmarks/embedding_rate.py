"""How close `littune embed` comes to what its image tower can do alone.

    LITTUNE_DATA=… python benchmarks/embedding_rate.py [--image package:efficientnet-lite2] [--onnx] [--json]

With --onnx each tower is exported, too, and its twin in onnxruntime takes part beside it, in float32.

In each round a tower first encodes batches of ready pixels, then the same pictures are embedded from their tar
shards into a fresh store, commits included. All take turns, so that what else the machine is doing hits both.
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
    runtime: str
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
    pairs = open_pairs(options.pairs)
    results: list[Result] = []
    for image in options.image:
        towers = [load_image_tower(image, precision=options.precision)]
        with tempfile.TemporaryDirectory() as folder:
            if options.onnx:
                towers.append(_twin(towers[0], Path(folder)))
            results += measure(towers, pairs, rounds=options.rounds, workers=options.workers)
    if options.json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    else:
        _print_table(results)


def measure(towers: Sequence[ImageTower], pairs: Source, *, rounds: int, workers: int) -> list[Result]:
    """Alternate towers of one preprocessing, each alone and in embed, for so many rounds."""
    pixels = _all_pixels(towers[0], pairs)
    batch_sizes = [_best_batch_size(tower, pixels) for tower in towers]
    paces: list[list[tuple[Pace, Pace]]] = [[] for _ in towers]
    for number in range(rounds):
        for tower, batch_size, its in zip(towers, batch_sizes, paces, strict=True):
            alone = _timed(len(pixels), partial(_encode, tower, pixels, batch_size))
            its.append((alone, _timed(len(pixels), partial(_embed, tower, pairs, workers))))
            rates = f"alone {alone.rate:.1f}, embed {its[-1][1].rate:.1f} images/s"
            log(f"round {number + 1}, {tower.trunk.runtime}: {rates}")
    return [
        _result(towers[0].spec, tower, len(pixels), batch_size, its)
        for tower, batch_size, its in zip(towers, batch_sizes, paces, strict=True)
    ]


def _result(image: str, tower: ImageTower, images: int, batch_size: int, paces: Sequence[tuple[Pace, Pace]]) -> Result:
    best_alone, best_embedded = (max(its, key=lambda pace: pace.rate) for its in zip(*paces, strict=True))
    return Result(
        image=image,
        runtime=tower.trunk.runtime,
        precision=tower.precision,
        threads=torch.get_num_threads(),
        images=images,
        rounds=len(paces),
        tower_batch_size=batch_size,
        tower_images_per_second=best_alone.rate,
        embed_images_per_second=best_embedded.rate,
        share=best_embedded.rate / best_alone.rate,
        median_share=statistics.median(embedded.rate / alone.rate for alone, embedded in paces),
        cpu_share=best_alone.cpu_seconds / best_embedded.cpu_seconds,
    )


def _twin(tower: ImageTower, folder: Path) -> ImageTower:
    """The tower in onnxruntime, which is an extra."""
    from littune.apps.export import ExportOptions
    from littune.apps.export.onnx import tower_to_onnx

    tower_to_onnx(tower, folder, ExportOptions())
    return load_image_tower(f"onnx:{folder / 'image_tower.onnx'}", pooling=tower.pooling)


def _all_pixels(tower: ImageTower, pairs: Source) -> UInt8[Tensor, "n 3 h w"]:
    samples = [sample for part in pairs.parts() for sample in part.samples() if isinstance(sample, Sample)]
    ready = [tower.preprocess(decode(sample.image)).permute(1, 2, 0) for sample in samples]
    return torch.stack(ready).permute(0, 3, 1, 2)


def _best_batch_size(tower: ImageTower, pixels: UInt8[Tensor, "n 3 h w"]) -> int:
    """Tried twice each, in turn, on a part of the pictures; the first turn warms up."""
    some = pixels[:128]
    turns = [{size: _timed(len(some), partial(_encode, tower, some, size)).rate for size in BATCH_SIZES} for _ in "123"]
    best = {size: max(turn[size] for turn in turns[1:]) for size in BATCH_SIZES}
    log(
        f"{tower.trunk.runtime} alone: "
        + ", ".join(f"batch {size}: {rate:.1f}" for size, rate in best.items())
        + " images/s"
    )
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
        "| image tower | runtime | precision | threads | alone, images/s | embed, images/s | share | median share "
        "| CPU share |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for it in results:
        print(
            f"| {it.image} | {it.runtime} | {it.precision} | {it.threads} | {it.tower_images_per_second:.1f} "
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
    add("--onnx", action="store_true", help="each tower's twin in onnxruntime, too")
    add("--rounds", type=int, default=5)
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_args()


if __name__ == "__main__":
    main()
