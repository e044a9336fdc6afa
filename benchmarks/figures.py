"""The table of recalls and accuracies on real data, mean and spread over seeds, beside the floor of a plain trial.

    python benchmarks/figures.py --work /tmp/figures [--seeds 3] [--json out.json]

Everything was chosen on the val splits; this scores test once per seed. It needs the real data that LITTUNE_DATA
names. Work that is done (stores, runs) is taken up again when it is run once more.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import littune as lt
from littune.apps.training import run_training

TOWER = "package:efficientnet-lite2"
TEXT = "package:minilm"

COLUMNS = {
    "flickr8k-1k t→i R@1": ("flickr8k-1k-test", "text_to_image/recall@1"),
    "R@5": ("flickr8k-1k-test", "text_to_image/recall@5"),
    "i→t R@1": ("flickr8k-1k-test", "image_to_text/recall@1"),
    "emoji-3d t→i R@1": ("emoji-3d-test", "text_to_image/recall@1"),
    "tuxpaint t→i R@1": ("tuxpaint-test", "text_to_image/recall@1"),
    "cifar10": ("cifar10", "accuracy@1"),
    "clothing": ("clothing", "accuracy@1"),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    stores: tuple[str, ...]
    locking: str = "LL"
    begin: str = ""
    center_on: str = ""
    settings: tuple[tuple[str, object], ...] = ()
    floor: tuple[float, ...] = ()


# Better on the val splits, and worse on photographs unlike those that were trained on.
HOT = (("lr", 4e-3), ("temperature", 14.0))
WARM = (("temperature", 14.0),)
THREE = ("flickr8k-1k-train", "emoji-3d-train", "tuxpaint-train")
# A store may be followed by :WEIGHT:FIELDS.
ROWS = (
    Row(name="flickr", stores=THREE[:1], floor=(27.0, 58.3, 37.5, 1.4, 6.7, 30.7, 7.6)),
    Row(name="three", stores=THREE, floor=(25.1, 57.1, 34.7, 18.9, 12.4, 37.8, 19.2)),
    Row(
        name="three+keywords",
        stores=(THREE[0], "emoji-3d-train::captions,keywords", THREE[2]),
        floor=(22.4, 52.7, 33.5, 26.0, 10.4, 35.3, 28.0),
    ),
    Row(name="prototypes", stores=("prototypes",), floor=(10.3, 28.0, 12.3, 4.6, 17.9, 43.9, 42.7)),
    Row(
        name="prototypes, centred on photos",
        stores=("prototypes",),
        center_on="flickr8k-1k-train",
        floor=(9.7, 27.3, 14.5, 4.8, 16.2, 44.4, 34.8),
    ),
    Row(name="prototypes+three", stores=("prototypes", *THREE), floor=(24.3, 56.9, 32.3, 21.4, 15.9, 48.5, 40.1)),
    Row(name="three, hot", stores=THREE, settings=HOT),
    Row(name="prototypes+three, warm", stores=("prototypes", *THREE), settings=WARM),
    Row(
        name="LU prototypes+three",
        stores=("prototypes", *THREE),
        locking="LU",
        begin="prototypes+three, warm",
        settings=(("epochs", 2),),
    ),
)


def main() -> None:
    """Embed, train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LITTUNE_DATA", "../shared/data")))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", choices=["val", "test"], default="test")
    parser.add_argument("--rows", nargs="*", default=[row.name for row in ROWS])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"no real data: LITTUNE_DATA={options.data} is no folder")
    stores = make_stores(options.data, options.work / "stores")
    table = {}
    for row in (row for row in ROWS if row.name in options.rows):
        scores = [score(row, seed, stores, options.work, options.split) for seed in range(options.seeds)]
        table[row.name] = {name: [one[name] for one in scores] for name in scores[0]}
        print(row_text(row, table[row.name]), flush=True)
    print("\n" + markdown([row for row in ROWS if row.name in table], table))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


def make_stores(data: Path, out: Path) -> dict[str, Path]:
    """Embed every set once; name → store."""
    tower = lt.load_image_tower(TOWER)
    stores = {
        f"{name}-{split}": lt.embed(tower, lt.open_pairs(f"{data}/{name}/{split}-*.tar"), out / f"{name}-{split}").path
        for name in ("flickr8k-1k", "emoji-3d", "tuxpaint")
        for split in ("train", "val", "test")
    }
    for name, folder in (("cifar10", first_shard(data / "cifar10", out)), ("clothing", data / "clothing")):
        stores[name] = lt.embed(tower, lt.open_pairs(folder), out / name).path
    stores["prototypes"] = lt.prototypes(tower, out / "prototypes").path
    return stores


def first_shard(full: Path, out: Path) -> Path:
    """A CLIP_benchmark folder of the first of CIFAR-10's ten shards, balanced over the classes."""
    folder = out.resolve() / "cifar10-shard0"
    (folder / "test").mkdir(parents=True, exist_ok=True)
    (folder / "test" / "nshards.txt").write_text("1\n")
    for name in ("classnames.txt", "zeroshot_classification_templates.txt", "test/0.tar"):
        if not (folder / name).exists():
            (folder / name).symlink_to((full / name).resolve())
    return folder


def score(row: Row, seed: int, stores: dict[str, Path], work: Path, split: str) -> dict[str, float]:
    """Train one row with one seed and score it, in percent; the seconds of training beside."""
    out = work / "runs" / f"{row.name.replace(' ', '-')}-{seed}"
    begin = work / "runs" / f"{row.begin.replace(' ', '-')}-{seed}" if row.begin else ""
    config = lt.TrainConfig(
        store=tuple(str(stores[name.partition(":")[0]]) + "".join(name.partition(":")[1:]) for name in row.stores),
        out=out,
        text="" if row.begin else TEXT,
        locking=row.locking,
        from_run=str(begin),
        center_on=str(stores[row.center_on]) if row.center_on else "",
        seed=seed,
        **dict(row.settings),
    )
    seconds = train_once(config)
    model = lt.LiT.load(out)
    names = {name: name.replace("-test", f"-{split}") for name, _ in COLUMNS.values()}
    results = lt.evaluate(model, [stores[name] for name in names.values()], templates="default").results
    by_set = dict(zip(names, results, strict=True))
    scores = {column: 100 * by_set[name].metrics[metric] for column, (name, metric) in COLUMNS.items()}
    return {**scores, "training s": seconds}


def train_once(config: lt.TrainConfig) -> float:
    """Train, unless that is done, and return the seconds that it took then."""
    seconds = config.out.with_suffix(".seconds")
    if not seconds.is_file():
        began = time.perf_counter()
        run_training(config)
        seconds.write_text(f"{time.perf_counter() - began}")
    return float(seconds.read_text())


def row_text(row: Row, scores: dict[str, list[float]]) -> str:
    """A row as plain text, the floor beside each cell."""
    floors = dict(zip(COLUMNS, row.floor, strict=False))
    return f"{row.name}: " + " | ".join(
        f"{name} {cell(values)}" + (f" [{floors[name]}]" if name in floors else "") for name, values in scores.items()
    )


def markdown(rows: list[Row], table: dict[str, dict[str, list[float]]]) -> str:
    """The table for the README."""
    names = list(next(iter(table.values())))
    lines = ["| trained on | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {row.name} | " + " | ".join(cell(table[row.name][name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """Mean ± standard deviation."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {spread:.1f}"


if __name__ == "__main__":
    main()
