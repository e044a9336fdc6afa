"""One exact step at a large global batch: its peak memory, its rate against the tower's own, and the loss's share.

    python benchmarks/exact_step.py [--batch 32768] [--captions 1] [--max-tokens 32] [--json out.json]

The texts are the distinct sentences of CuPL that `clip-benchmark` ships, the text tower is MiniLM, unlocked; image
rows are drawn (1280-d), `--captions` texts to each. The step runs in a process of its own, whose peak memory is
reported: the interpreter, torch, the tower and AdamW's state included. Then, in the same run:

- the tower alone, forward and backward with a graph, at the best of several micro-batch sizes: what texts/s is
  measured against;
- the loss alone, forward and backward, on the same number of texts, with one and with four of them to an image.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from littune.base.memory import keep_freed_memory, peak_memory
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.tower import Identity
from littune.towers.precision import wants_bfloat16
from littune.towers.text.sources import load_text_tower
from littune.towers.text.tokenizer import micro_batches
from littune.tuning.data.sides import Table, TunedTexts, graph_budget
from littune.tuning.loss.streamed import streamed_softmax_loss
from littune.tuning.optim.groups import parameter_groups
from littune.tuning.optim.optimizers import make_optimizer
from littune.tuning.step import contrastive_step

DIM = 1280
NUM_SAMPLED = 512


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one step took."""

    batch: int
    images: int
    tokens: float
    precision: str
    step_seconds: float
    peak_gb: float
    texts_per_second: float
    tower_texts_per_second: float
    loss_seconds: dict[int, float]
    """By texts to an image."""

    def to_text(self) -> str:
        """Lines for people."""
        return (
            f"batch {self.batch:,} texts of {self.tokens:.1f} tokens, {self.images:,} images, {self.precision}\n"
            f"  peak memory   {self.peak_gb:.2f} GB\n"
            f"  step          {self.step_seconds:.1f} s, {self.texts_per_second:.0f} texts/s\n"
            f"  tower alone   {self.tower_texts_per_second:.0f} texts/s; the step runs at "
            f"{self.texts_per_second / self.tower_texts_per_second:.0%} of it\n"
            + "".join(
                f"  loss          {taken:.1f} s, {taken / self.step_seconds:.0%} of the step, {count} texts an image\n"
                for count, taken in self.loss_seconds.items()
            ).rstrip()
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=32_768)
    parser.add_argument("--captions", type=int, default=1, help="texts to an image")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        measured = pool.apply(measure, (options.batch, options.captions, options.max_tokens))
    print(measured.to_text())
    if options.json:
        options.json.write_text(json.dumps(asdict(measured), indent=1))


def measure(batch: int, captions: int, max_tokens: int) -> Measured:
    """Take one step, and then its parts alone."""
    keep_freed_memory()  # as ``littune train`` does
    texts = sentences()[:batch]
    if len(texts) < batch:
        raise SystemExit(f"there are {len(texts)} distinct sentences, fewer than a batch of {batch}")
    num_images = batch // captions
    torch.manual_seed(0)
    tower = load_text_tower("package:minilm", max_tokens=max_tokens)
    reference = ImageReference(spec="drawn", pooling="own", identity=Identity(weights="", pooling="own", dim=DIM))
    model = LiT(text=tower, reference=reference, center=torch.zeros(DIM)).eval()
    model.text.requires_grad_(True)
    optimizer = make_optimizer("adamw", parameter_groups(model, weight_decay=0.01), lr=1e-4)
    tokens = tower.tokenize(texts)
    bfloat16 = wants_bfloat16("cpu", "auto")
    device = torch.device("cpu")
    side = TunedTexts.fitted(tower, tokens, device=device, bfloat16=bfloat16, budget=graph_budget(device))
    rows = np.random.default_rng(0).standard_normal((num_images, DIM), dtype=np.float32).astype(np.float16)
    images = Table(lambda numbers, step: torch.from_numpy(rows[numbers].astype(np.float32)))

    def loss_of(image_rows: Tensor, pooled: Tensor) -> Tensor:
        owners = torch.arange(batch) * len(image_rows) // batch
        positives = torch.stack([owners, torch.arange(batch)], dim=1)
        return streamed_softmax_loss(*model.factors(image_rows, pooled), positives, model.log_temperature)

    sides = [(images, np.arange(num_images)), (side, np.arange(batch))]
    step = seconds(lambda: contrastive_step(sides, loss_of, optimizer, step=0, max_norm=1.0))
    peak = peak_memory()
    pooled = torch.randn(batch, tower.dim, requires_grad=True)
    table = torch.from_numpy(rows.astype(np.float32))
    return Measured(
        batch=batch,
        images=num_images,
        tokens=float(tokens.lengths.float().mean()),
        precision="bfloat16" if bfloat16 else "float32",
        step_seconds=step,
        peak_gb=peak / 1e9,
        texts_per_second=batch / step,
        tower_texts_per_second=max(tower_rate(side, max_tokens=size) for size in (512, 1024, 2048, 4096)),
        loss_seconds={
            count: seconds(lambda count=count: torch.autograd.backward(loss_of(table[: batch // count], pooled)))
            for count in (1, 4)
            if count >= captions
        },
    )


def sentences() -> list[str]:
    """The distinct sentences of CuPL."""
    found = json.loads((files("clip_benchmark") / "datasets" / "cupl_prompts.json").read_text())
    return list(dict.fromkeys(text for of_set in found.values() for texts in of_set.values() for text in texts))


def tower_rate(side: TunedTexts, *, max_tokens: int) -> float:
    """Texts a second of the tower alone, with a graph, on a sample in micro-batches of so many tokens."""
    sample = np.linspace(0, len(side.tokens.lengths) - 1, NUM_SAMPLED).astype(np.int64)
    cuts = micro_batches(side.tokens.lengths[torch.from_numpy(sample)].numpy(), max_tokens)

    def run() -> None:
        with side.tower.gathered_words(side.tokens.batch(torch.from_numpy(sample))[0]):
            for cut in cuts:
                torch.autograd.backward(side.run(sample[cut]).sum())

    run()
    return len(sample) / min(seconds(run), seconds(run))


def seconds(run: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
