"""littune against its peer in evaluation: clip-benchmark's own functions, on the same towers, embeddings and sets.

    python benchmarks/peer_clip_benchmark.py                          # twenty minutes or so on two quiet cores
    python benchmarks/peer_clip_benchmark.py --classes 20 --images 500 --texts 2500     # a check that all of it runs
    python benchmarks/peer_clip_benchmark.py --sets RUN               # cifar10 and flickr8k-1k whole, both programs

- Classifier: ImageNet's class names in OpenAI's 80 templates, MiniLM, float32. The peer reads what CLIP's text towers
  read, 77 tokens, padded; littune what a text has. The directions are compared.
- Recall: drawn embeddings, both directions, k = 5. The numbers must be equal to the last digit.
- Sets: the scores of one run by clip-benchmark's own command (`littune.apps.clip_benchmark`) and by `littune eval`,
  on the data that $LITTUNE_DATA names.

Each side runs in a process of its own. Seconds are those of the function, without start-up and without making its
inputs; memory is what the process's peak grew by meanwhile.
"""

import argparse
import json
import os
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from peer.measure import run

from littune.evaluation.metrics.ranks import share_within
from littune.evaluation.metrics.retrieval import retrieval_ranks, text_groups
from littune.model.classnames import load_classnames
from littune.model.prompts import load_templates
from littune.model.zero_shot import zero_shot_classifier
from littune.towers.text.sources import load_text_tower

TOWER = "package:minilm"
CONTEXT = 77
K = 5


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a side's function cost, and what it gave."""

    seconds: float
    megabytes: float
    foreign: float
    result: list[float]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=1000, help="so many of ImageNet's classes; 0 for none")
    parser.add_argument("--images", type=int, default=5000, help="images to find and be found; 0 for none")
    parser.add_argument("--texts", type=int, default=25_000)
    parser.add_argument("--dims", type=int, nargs="+", default=[1280, 384])
    parser.add_argument("--sets", type=Path, metavar="RUN", help="compare the scores of this run instead")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("LITTUNE_DATA", "../shared/data")))
    parser.add_argument("--side", choices=sorted(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options)
        return
    with tempfile.TemporaryDirectory() as work:
        options.work = Path(work)
        if options.sets:
            compare_sets(options)
            return
        if options.classes:
            compare_classifiers(options)
        for dim in options.dims if options.images else ():
            compare_recall(options, dim)


def compare_classifiers(options: argparse.Namespace) -> None:
    """Both classifiers, and how far apart they are."""
    costs = [cost(options, f"classifier-{side}", 0) for side in ("peer", "littune")]
    ours, theirs = (np.load(options.work / f"{side}.npy") for side in ("littune", "peer"))
    print_costs(f"{options.classes} classes x 80 templates", *costs)
    print(f"  lowest cosine of a class's two directions: {(ours * theirs).sum(axis=1).min():.7f}\n")


def compare_recall(options: argparse.Namespace, dim: int) -> None:
    """Both recalls at 5, which must be equal."""
    peer, littune = (cost(options, f"recall-{side}", dim) for side in ("peer", "littune"))
    print_costs(f"recall@{K}, {options.images:,} images x {options.texts:,} texts, {dim} dimensions", peer, littune)
    equal = "equal" if peer.result == littune.result else "DIFFERENT"
    print(f"  text to image, image to text: {peer.result} and {littune.result}: {equal}\n")


def print_costs(title: str, peer: Cost, littune: Cost) -> None:
    """Two lines and their ratio."""
    print(title)
    for name, each in (("clip-benchmark", peer), ("littune", littune)):
        print(f"  {name:15} {each.seconds:8.2f} s {each.megabytes:8.0f} MB   ({each.foreign:.0%} of the cores others')")
    print(f"  {peer.seconds / littune.seconds:.1f} times as fast", flush=True)


def cost(options: argparse.Namespace, side: str, dim: int) -> Cost:
    """Run one side in a process of its own."""
    sizes = ["--classes", options.classes, "--images", options.images, "--texts", options.texts, "--dims", dim]
    command = [sys.executable, __file__, "--side", side, "--work", options.work, *sizes]
    done = run([str(part) for part in command], log=options.work / f"{side}.log")
    return Cost(foreign=done.foreign, **json.loads(done.stdout.splitlines()[-1]))


def measure(options: argparse.Namespace) -> None:
    """Be one side: print what it cost as JSON."""
    function = SIDES[options.side](options)
    before, start = peak_megabytes(), time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes() - before, "result": result}))


def peak_megabytes() -> float:
    """The most that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def names_and_templates(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """So many of ImageNet's names, and OpenAI's 80 templates."""
    templates = [template for template in load_templates("clip_paper") if template != "{}"]
    return list(load_classnames("imagenet"))[: options.classes], templates


def classifier_littune(options: argparse.Namespace) -> Callable[[], list[float]]:
    """Our classifier."""
    tower = load_text_tower(TOWER, max_tokens=CONTEXT)
    names, templates = names_and_templates(options)

    def encode(texts: Sequence[str]) -> np.ndarray:
        return tower.embed(texts, precision="float32").numpy()

    def make() -> list[float]:
        classifier = zero_shot_classifier(encode, names, templates)
        np.save(options.work / "littune.npy", classifier)
        return []

    return make


def classifier_peer(options: argparse.Namespace) -> Callable[[], list[float]]:
    """Theirs, as it comes: every class for itself, every text as long as the context."""
    from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier as theirs

    tower = load_text_tower(TOWER, max_tokens=CONTEXT)
    names, templates = names_and_templates(options)
    spelled = [template.replace("{}", "{c}") for template in templates]

    def tokenize(texts: list[str]) -> torch.Tensor:
        ids, mask = tower.tokenize(texts).batch(range(len(texts)))
        padding = (0, CONTEXT - ids.shape[1])
        ids = torch.nn.functional.pad(ids, padding, value=tower.pad_id)
        return torch.stack([ids, torch.nn.functional.pad(mask.long(), padding)], dim=1)

    class Model:
        def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
            return tower(tokens[:, 0], tokens[:, 1].bool())

    def make() -> list[float]:
        classifier = theirs(Model(), tokenize, names, spelled, "cpu", amp=False)
        np.save(options.work / "peer.npy", classifier.T.numpy())
        return []

    return make


def drawn(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images, texts near them, and each text's image."""
    rng, (dim,) = np.random.default_rng(0), options.dims
    owners = np.arange(options.texts) % options.images
    images = rng.standard_normal((options.images, dim), dtype=np.float32)
    # So near that some are found and some are not.
    texts = 3.2 / dim**0.5 * images[owners] + rng.standard_normal((options.texts, dim), dtype=np.float32)
    for rows in (images, texts):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return images, texts, owners


def recall_littune(options: argparse.Namespace) -> Callable[[], list[float]]:
    """Our recall; that of duplicates is counted along with it."""
    images, texts, owners = drawn(options)
    captions = [str(number) for number in range(len(texts))]

    def score() -> list[float]:
        ranks = retrieval_ranks(images, texts, owners, text_groups(captions))
        found = [share_within(ranks[f"{way}/recall"], K) for way in ("text_to_image", "image_to_text")]
        return [float(np.float32(share)) for share in found]

    return score


def recall_peer(options: argparse.Namespace) -> Callable[[], list[float]]:
    """Theirs: the lines of its ``evaluate`` from the embeddings on, in batches of its default 64."""
    from clip_benchmark.metrics.zeroshot_retrieval import batchify, recall_at_k

    images, texts, owners = (torch.from_numpy(array) for array in drawn(options))

    def score() -> list[float]:
        scores = texts @ images.t()
        positive = torch.zeros_like(scores, dtype=torch.bool)
        positive[torch.arange(len(scores)), owners] = True
        ways = ((scores, positive), (scores.T, positive.T))
        return [(batchify(recall_at_k, *way, 64, "cpu", k=K) > 0).float().mean().item() for way in ways]

    return score


def compare_sets(options: argparse.Namespace) -> None:
    """A table of both programs' scores on real sets."""
    retrieval = ["--task", "zeroshot_retrieval", "--recall_k", "1", "5", "10"]
    names = {"acc1": "accuracy@1", "acc5": "accuracy@5", "mean_per_class_recall": "mean_per_class_accuracy"}
    for k in (1, 5, 10):
        names[f"image_retrieval_recall@{k}"] = f"text_to_image/recall@{k}"
        names[f"text_retrieval_recall@{k}"] = f"image_to_text/recall@{k}"
    pairs = retrieval_set(options.data / "flickr8k-1k", options.work / "flickr8k-1k")
    for folder, more in ((options.data / "cifar10", []), (pairs, retrieval)):
        out = options.work / "scores.json"
        flags = ["--model_type", "littune", "--model", options.sets, "--no_amp", "--num_workers", "0", "--output", out]
        data = ["--dataset", f"wds/{folder.name}", "--dataset_root", folder]
        module = [sys.executable, "-m", "littune.apps.clip_benchmark", "eval"]
        peer = run([str(part) for part in [*module, *flags, *data, *more]], log=options.work / "peer.log")
        theirs = json.loads(out.read_text())["metrics"]
        verb = [sys.executable, "-m", "littune", "eval", "--run", options.sets, "--on", folder, "--json"]
        ours = run([str(part) for part in verb], log=options.work / "littune.log")
        (found,) = json.loads(ours.stdout)["results"]
        print(f"{folder.name}: clip-benchmark {peer.seconds:.0f} s, littune {ours.seconds:.0f} s, embedding included")
        for name, value in theirs.items():
            own = found["metrics"][names[name]]
            equal = "equal" if np.float32(value) == np.float32(own) else "DIFFERENT"
            print(f"  {names[name]:24} {value:.6f} {own:.6f} {equal}")


def retrieval_set(shards: Path, out: Path) -> Path:
    """The test split in clip-benchmark's layout: a caption a line."""
    (out / "test").mkdir(parents=True)
    (out / "test" / "nshards.txt").write_text("1\n")
    (out / "dataset_type.txt").write_text("retrieval\n")
    with tarfile.open(out / "test" / "0.tar", "w") as target:
        for shard in sorted(shards.glob("test-*.tar")):
            with tarfile.open(shard) as tar:
                for member in tar:
                    key, _, suffix = member.name.rpartition(".")
                    content = tar.extractfile(member).read()
                    if suffix == "json":
                        content = "\n".join(json.loads(content)["captions"]).encode()
                    if suffix in ("jpg", "json"):
                        info = tarfile.TarInfo(member.name if suffix == "jpg" else f"{key}.txt")
                        info.size = len(content)
                        target.addfile(info, BytesIO(content))
    return out


SIDES: dict[str, Callable[[argparse.Namespace], Callable[[], list[float]]]] = {
    "classifier-littune": classifier_littune,
    "classifier-peer": classifier_peer,
    "recall-littune": recall_littune,
    "recall-peer": recall_peer,
}


if __name__ == "__main__":
    main()
