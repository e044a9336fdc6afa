"""What the paper found, asked again at our scale: lockings (Table 2), losses and batch sizes, global and per-device.

    python benchmarks/lockings.py --work /tmp/lockings [--only lockings losses parts] [--json out.json]

EfficientNet-Lite0 at 128 px and MiniLM (or a small text transformer from scratch) on flickr8k-1k's 3,500 pairs.

- `lockings`: LU, Lu, UU, Uu and uu, two epochs each (7,000 pairs seen), littune's default settings for each.
- `losses`: softmax and sigmoid at batches of 64 to 4,096, heads alone (LL) on prototypes and captions of three sets
  (9,704 pairs, ten epochs), each with the learning rate that is best on val.
- `parts`: the same, batch 512, the loss over the whole batch and over 2, 4 and 8 parts of it (the paper's per-device
  loss, App. F).

Learning rates are chosen on val, scores are those of test; one seed. The paper's order is a hypothesis here.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import littune as lt
from littune.apps.training import run_training
from littune.towers.image.tower import ImageTower

SIZE, RESIZE = 128, 146
TEXT = "package:minilm"
LOCKINGS = ("LU", "Lu", "UU", "Uu", "uu")
BATCHES = (64, 256, 1024, 4096)
RATES = (5e-4, 2e-3, 8e-3)
SETS = ("flickr8k-1k", "emoji-3d", "tuxpaint")
T2I, I2T = "text_to_image/recall@1", "image_to_text/recall@1"

Scores = dict[str, float]


def main() -> None:
    """Run what is asked for, and print it as tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LITTUNE_DATA", "../shared/data")))
    parser.add_argument("--only", nargs="*", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"no real data: LITTUNE_DATA={options.data} is no folder")
    image = small_tower(options.work / "image")
    found = {}
    for name in options.only:
        started = time.monotonic()
        found[name] = TABLES[name](options.work, options.data, image)
        print(markdown(name, found[name]) + f"\n\n{time.monotonic() - started:.0f} s\n", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def small_tower(folder: Path) -> str:
    """The spec of EfficientNet-Lite0 that sees 128 px."""
    tower = lt.load_image_tower("package:efficientnet-lite0")
    preprocess = replace(tower.preprocess, size=SIZE, resize=RESIZE)
    folder.mkdir(parents=True, exist_ok=True)
    ImageTower(spec=tower.spec, trunk=tower.trunk, preprocess=preprocess).save_weights(
        folder / "image_tower.safetensors"
    )
    return f"run:{folder}"


def lockings(work: Path, data: Path, image: str) -> dict[str, Scores]:
    """Table 2's shape."""
    pairs, sets = str(data / "flickr8k-1k" / "train-*.tar"), test_sets(data)
    store = lt.embed(lt.load_image_tower(image), lt.open_pairs(pairs), work / "store-flickr8k-1k-train")
    rows = {}
    for locking in LOCKINGS:
        source = {"store": (str(store.path),)} if locking[0] == "L" else {"pairs": pairs, "image": image}
        text = "scratch:S" if locking[1] == "u" else TEXT
        out = work / f"locking-{locking}"
        started = time.monotonic()
        model = run(lt.TrainConfig(**source, out=out, text=text, locking=locking, epochs=2))
        taken = time.monotonic() - started
        rows[locking] = scores(model, sets) | {"seconds": taken}
    return rows


def losses(work: Path, data: Path, image: str) -> dict[str, Scores]:
    """Softmax against sigmoid over batch sizes."""
    settings = {f"{loss}, batch {batch}": {"loss": loss, "batch_size": batch} for batch in BATCHES for loss in LOSSES}
    return heads_alone(work, data, image, settings)


def parts(work: Path, data: Path, image: str) -> dict[str, Scores]:
    """The global loss against a loss for each part of a batch."""
    settings = {
        f"{loss}, {count} part{'s' if count > 1 else ''} of 512": {"loss": loss, "loss_parts": count}
        for count in (1, 2, 4, 8)
        for loss in LOSSES
    }
    return heads_alone(work, data, image, settings)


LOSSES = ("softmax", "sigmoid")
TABLES: dict[str, Callable[[Path, Path, str], dict[str, Scores]]] = {
    "lockings": lockings,
    "losses": losses,
    "parts": parts,
}


def heads_alone(work: Path, data: Path, image: str, settings: dict[str, dict[str, object]]) -> dict[str, Scores]:
    """Each setting with the learning rate that is best on val, scored on test."""
    tower = lt.load_image_tower(image)
    stores = [
        str(lt.embed(tower, lt.open_pairs(f"{data}/{name}/train-*.tar"), work / f"store-{name}-train").path)
        for name in SETS
    ]
    classes = lt.load_image_tower("package:efficientnet-lite0")
    stores.append(str(lt.prototypes(classes, work / "store-prototypes").path))
    val = lt.embed(tower, lt.open_pairs(f"{data}/flickr8k-1k/val-*.tar"), work / "store-val").path
    rows = {}
    for name, changed in settings.items():
        best: tuple[float, float, lt.LiT] | None = None
        for rate in RATES:
            out = work / f"{name.replace(' ', '-')}-{rate:g}"
            config = lt.TrainConfig(
                store=tuple(stores), out=out, text=TEXT, locking="LL", epochs=10, lr=rate, **changed
            )
            model = run(config)
            recall = lt.evaluate(model, val).results[0].metrics[T2I]
            if best is None or recall > best[0]:
                best = (recall, rate, model)
        assert best is not None
        rows[name] = scores(best[2], test_sets(data)) | {"lr": best[1]}
    return rows


def test_sets(data: Path) -> list[str]:
    """Flickr8k's photographs, and shop photos of ten classes."""
    return [str(data / "flickr8k-1k" / "test-*.tar"), str(data / "clothing")]


def run(config: lt.TrainConfig) -> lt.LiT:
    """Train, or take up what is there."""
    run_training(config)
    return lt.LiT.load(config.out)


def scores(model: lt.LiT, sets: list[str]) -> Scores:
    """What the tables show, in percent."""
    pairs, labelled = lt.evaluate(model, sets).results
    return {
        "flickr8k-1k t→i R@1": 100 * pairs.metrics[T2I],
        "i→t R@1": 100 * pairs.metrics[I2T],
        "clothing": 100 * labelled.metrics["accuracy@1"],
    }


def markdown(name: str, rows: dict[str, Scores]) -> str:
    """A table."""
    columns = list(next(iter(rows.values())))
    lines = [f"| {name} | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    for row, cells in rows.items():
        shown = [f"{value:g}" if column == "lr" else f"{value:.1f}" for column, value in cells.items()]
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
