"""littune against its peer: open_clip's own training command with `--lock-image`, on the same photos, towers and batch.

    python benchmarks/peer_open_clip.py             # about twelve minutes on two quiet cores
    python benchmarks/peer_open_clip.py --quick     # a check that all of it runs, in two or three; no figures to quote
    python benchmarks/peer_open_clip.py --vit       # a ViT-B/16 (drawn weights) in its place, batch 64; the pace alone

It reads `flickr8k-1k` under $LITTUNE_DATA. Both sides have EfficientNet-Lite2 locked, MiniLM (mean-pooled, a new linear
head into the image tower's 1280 dimensions) and batches of 128. The peer runs in an environment of its own, which
`benchmarks/peer/setup.sh` makes (`--peer-python` names one that exists). Its training loop is open_clip's, unchanged.

Measured, the peer's runs and littune's taking turns, medians over the rounds:

- Pairs a second while training, start-up and the first step (littune: the first lines of the log) left out.
- Peak memory: the largest resident process of a side's whole way, littune's embedding included.
- Time to equal recall: the peer trains on pairs of one photo and one caption (every caption, not only the first that
  it would read from the shards) for `--recall-steps` steps; littune runs its own way from the shards: embedding, text
  caching, training. Each time is from starting to ending the commands, scoring aside. Recall is that of flickr8k-1k's
  test split. The peer's learning rate was chosen on the val split (`PEER_LR`).
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from peer.measure import Lines, Run, run
from peer.shards import write_pair_shards

HERE = Path(__file__).resolve().parent / "peer"
IMAGE, TEXT = "package:efficientnet-lite2", "package:minilm"
PEER_LR = 1e-3
AS_IT_COMES = 77  # open_clip's context length


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long each part runs."""

    batch: int = 128
    rounds: int = 2
    peer_steps: int = 3
    recall_steps: int = 12
    ll_epochs: int = 20
    lu_epochs: int = 2
    split: str = "train"
    vit: bool = False


VIT = Plan(batch=64, rounds=1, peer_steps=3, recall_steps=0, ll_epochs=20, lu_epochs=3, split="val", vit=True)
QUICK = Plan(batch=32, rounds=1, peer_steps=2, recall_steps=2, ll_epochs=5, split="val")


@dataclass(kw_only=True)
class Row:
    """One way to train."""

    rates: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    foreign: list[float] = field(default_factory=list)
    pairs_seen: int = 0
    seconds_to_recall: list[float] = field(default_factory=list)
    recall: dict[str, float] = field(default_factory=dict)

    def add(self, result: Run, rate: float) -> None:
        """Take in one run."""
        self.rates.append(rate)
        self.peak_bytes = max(self.peak_bytes, result.peak_bytes)
        self.foreign.append(result.foreign)


class Peer:
    """open_clip's command."""

    def __init__(self, python: Path, data: Path, work: Path, plan: Plan) -> None:
        self._python, self._work, self._batch = str(python), work, plan.batch
        self.shards = sorted(data.glob(f"{plan.split}-*.tar"))
        self.pair_shards = write_pair_shards(self.shards, work / "pairs")
        self._model, self._test = work / "model", sorted(data.glob("test-*.tar"))
        flags = ["--vit"] if plan.vit else []
        run([self._python, str(HERE / "model.py"), str(self._model), *flags], log=work / "peer-model.log")
        self.image = f"timm:vit_base_patch16_224@{self._model / 'vit.safetensors'}" if plan.vit else IMAGE

    def train(self, name: str, shards: list[Path], *, context: int, precision: str, steps: int) -> tuple[Run, float]:
        """Train for so many steps; what it cost, and pairs a second."""
        logs = self._work / "logs"
        settings = {
            "model": f"local-dir:{self._model}",
            "force-context-length": context,
            "train-data": "::".join(map(str, shards)),
            "dataset-type": "webdataset",
            "train-num-samples": steps * self._batch,
            "batch-size": self._batch,
            "epochs": 1,
            "workers": 1,
            "precision": precision,
            "device": "cpu",
            "lr": PEER_LR,
            "warmup": max(1, steps // 10),
            "log-every-n-steps": 1,
            "logs": logs,
            "name": name,
        }
        flags = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        lines = Lines(logs / name / "out.log", "Train Epoch")
        command = [self._python, "-m", "open_clip_train.main", "--lock-image", *flags]
        result = run(command, log=self._work / f"{name}.log", watch=lines)
        return result, lines.per_second() * self._batch

    def recall(self, name: str, *, context: int) -> dict[str, float]:
        """Score a run's last checkpoint on the test split."""
        checkpoint = self._work / "logs" / name / "checkpoints" / "epoch_1.pt"
        command = [self._python, str(HERE / "recall.py"), str(self._model), str(checkpoint), *map(str, self._test)]
        result = run([*command, "--context-length", str(context)], log=self._work / f"{name}-recall.log")
        scores: dict[str, float] = json.loads(result.stdout)
        return scores


class Littune:
    """littune's commands."""

    def __init__(self, data: Path, work: Path, plan: Plan, *, image: str, max_tokens: int) -> None:
        self._image = image
        self._data, self._work, self._batch, self._max_tokens = data, work, plan.batch, max_tokens
        self.store = work / "store"
        self._test = work / "store-test"
        self.embedding = self._embed(f"{plan.split}-*.tar", self.store)

    def train(self, name: str, *, locking: str, epochs: int, start: str = "") -> tuple[Run, float]:
        """Train for so many epochs, perhaps from another run; what it cost, and pairs a second."""
        out = self._work / "runs" / name
        begin = ["--from", str(self._work / "runs" / start)] if start else ["--text", TEXT]
        size = ["--max-tokens", str(self._max_tokens), "--batch-size", str(self._batch), "--epochs", str(epochs)]
        lines = Lines(out / "metrics.jsonl", '"loss"')
        verb = ["train", "--store", str(self.store), *begin, "--locking", locking, *size, "--out", str(out)]
        result = self._run(verb, name, watch=lines)
        return result, lines.per_second() * self._batch

    def recall(self, name: str) -> dict[str, float]:
        """Score a run on the test split."""
        if not self._test.exists():
            self._embed("test-*.tar", self._test)
        verb = ["eval", "--run", str(self._work / "runs" / name), "--on", str(self._test), "--json"]
        (result,) = json.loads(self._run(verb, f"{name}-recall").stdout)["results"]
        wanted = ("text_to_image/recall@1", "text_to_image/recall@5", "image_to_text/recall@1")
        return {metric: result["metrics"][metric] for metric in wanted}

    def _embed(self, shards: str, out: Path) -> Run:
        verb = ["embed", "--pairs", str(self._data / shards), "--image", self._image, "--out", str(out)]
        return self._run(verb, out.name)

    def _run(self, verb: list[str], name: str, watch: Lines | None = None) -> Run:
        return run([sys.executable, "-m", "littune", *verb], log=self._work / f"littune-{name}.log", watch=watch)


def measure(peer: Peer, littune: Littune, plan: Plan, *, precisions: list[str], tokens: int) -> dict[str, Row]:
    """All runs, the two sides taking turns."""
    rows: dict[str, Row] = defaultdict(Row)
    embed_seconds = littune.embedding.seconds
    for turn in range(plan.rounds):
        for precision in precisions:
            name = f"open_clip, {AS_IT_COMES} tokens, {precision}"
            steps = {"context": AS_IT_COMES, "precision": precision, "steps": plan.peer_steps}
            rows[name].add(*peer.train(f"peer-{precision}-{turn}", peer.shards, **steps))

        ll, lu = rows["littune LL"], rows["littune LU, from LL"]
        ll_run, rate = littune.train(f"ll-{turn}", locking="LL", epochs=plan.ll_epochs)
        ll.add(ll_run, rate)
        ll.seconds_to_recall.append(embed_seconds + ll_run.seconds)

        if turn == 0 and plan.recall_steps:
            name = f"open_clip, {tokens} tokens, {precisions[0]}"
            steps = {"context": tokens, "precision": precisions[0], "steps": plan.recall_steps}
            result, rate = peer.train("peer-recall", peer.pair_shards, **steps)
            rows[name].add(result, rate)
            rows[name].pairs_seen = plan.recall_steps * plan.batch
            rows[name].seconds_to_recall.append(result.seconds)
            rows[name].recall = peer.recall("peer-recall", context=tokens)

        lu_run, rate = littune.train(f"lu-{turn}", locking="LU", epochs=plan.lu_epochs, start=f"ll-{turn}")
        lu.add(lu_run, rate)
        lu.seconds_to_recall.append(embed_seconds + ll_run.seconds + lu_run.seconds)
    for row, name in ((ll, "ll-0"), (lu, "lu-0")):
        if plan.recall_steps:
            row.recall = littune.recall(name)
        row.peak_bytes = max(row.peak_bytes, littune.embedding.peak_bytes)
    return rows


def table(rows: dict[str, Row], batch: int) -> str:
    """Two tables in Markdown: the pace, and the time to equal recall."""
    base = statistics.median(next(iter(rows.values())).rates)
    rows = dict(sorted(rows.items(), key=lambda item: item[0].startswith("littune")))
    lines = [f"| batch {batch} | pairs/s | of the peer's as it comes | peak memory, GB | cores taken by others |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, row in rows.items():
        rate = statistics.median(row.rates)
        cells = (f"{rate:,.1f}", f"{rate / base:,.1f} ×", f"{row.peak_bytes / 1e9:.1f}", f"{max(row.foreign):.0%}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")

    if not any(row.pairs_seen for row in rows.values()):
        return "\n".join(lines)
    lines += ["", "| flickr8k-1k, test | seconds from start | text→image R@1 | R@5 | image→text R@1 |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, row in rows.items():
        if row.recall:
            done = f", {row.pairs_seen:,} pairs" if row.pairs_seen else ", embedding and text caching included"
            percents = " | ".join(f"{100 * value:.1f}" for value in row.recall.values())
            lines.append(f"| {name}{done} | {statistics.median(row.seconds_to_recall):,.0f} | {percents} |")
    return "\n".join([*lines, "", verdict(rows)])


def verdict(rows: dict[str, Row]) -> str:
    """One sentence a littune row: whether it reached the peer's recall, and in what share of the time."""
    metric, sentences = "text_to_image/recall@1", []
    peer = next(row for row in rows.values() if row.pairs_seen)
    for name, row in rows.items():
        if row.recall and row is not peer:
            share = statistics.median(row.seconds_to_recall) / statistics.median(peer.seconds_to_recall)
            reached = "reached" if row.recall[metric] >= peer.recall[metric] else "did not reach"
            sentences.append(f"{name} {reached} the peer's text→image R@1 in {share:.2f} of its time.")
    return " ".join(sentences)


def machine(peer_python: Path) -> dict[str, str]:
    """What the figures were measured on and with."""
    cpu = Path("/proc/cpuinfo").read_text()
    model = next((line.split(":")[1].strip() for line in cpu.splitlines() if line.startswith("model name")), "?")
    simd = [flag for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if f" {flag} " in cpu.replace("\n", " ")]
    script = "import open_clip, torch; print(f'open_clip {open_clip.__version__}, torch {torch.__version__}')"
    peer = subprocess.run([peer_python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    return {"cpu": model, "cores": str(os.cpu_count()), "simd": simd[0] if simd else "", "peer": peer} | {
        "python": platform.python_version()
    }


def best_precision(simd: str) -> str:
    """bfloat16 is the peer's best only where the cores compute in it; elsewhere it is many times slower."""
    return "amp_bf16" if simd in ("amx_bf16", "avx512_bf16") else "fp32"


def peer_environment(given: Path | None) -> Path:
    """The peer's Python, made if there is none."""
    if given is not None:
        return given
    venv = Path(tempfile.gettempdir()) / "littune-peer-venv"
    if not (venv / "bin" / "python").exists():
        site = Path(next(path for path in sys.path if path.endswith("site-packages")))
        command = [str(HERE / "setup.sh"), str(venv), str(site)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHON": sys.executable}, stdout=sys.stderr)
    return venv / "bin" / "python"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("LITTUNE_DATA"), help="by default $LITTUNE_DATA")
    parser.add_argument("--work", type=Path, help="where runs are kept; by default a folder that goes away")
    parser.add_argument("--peer-python", type=Path, help="a Python that has open_clip's training command")
    parser.add_argument("--peer-precision", nargs="+", default=["auto"], help="auto, fp32, amp_bf16")
    parser.add_argument("--max-tokens", type=int, default=32, help="littune's, and the peer's where set to ours")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--recall-steps", type=int, help="the peer's steps until its recall is taken")
    parser.add_argument("--quick", action="store_true", help="a short check, not for figures")
    parser.add_argument("--vit", action="store_true", help="a ViT-B/16 as the image tower; the pace alone")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    if options.data is None or not (options.data / "flickr8k-1k").is_dir():
        parser.error("there is no flickr8k-1k under --data; set LITTUNE_DATA")
    if options.work is not None and options.work.exists() and any(options.work.iterdir()):
        parser.error(f"{options.work} is not empty: a run that goes on would be timed wrongly")

    plan = VIT if options.vit else QUICK if options.quick else Plan()
    chosen = {"rounds": options.rounds, "recall_steps": options.recall_steps}
    plan = Plan(**(asdict(plan) | {name: value for name, value in chosen.items() if value is not None}))
    python = peer_environment(options.peer_python)
    about = machine(python)
    precisions = [best_precision(about["simd"]) if p == "auto" else p for p in options.peer_precision]

    work = options.work or Path(tempfile.mkdtemp(prefix="littune-peer-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        data = options.data / "flickr8k-1k"
        peer = Peer(python, data, work, plan)
        littune = Littune(data, work, plan, image=peer.image, max_tokens=options.max_tokens)
        rows = measure(peer, littune, plan, precisions=precisions, tokens=options.max_tokens)
    finally:
        if options.work is None:
            shutil.rmtree(work)
    figures = {"machine": about, "plan": asdict(plan), "rows": {name: asdict(row) for name, row in rows.items()}}
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    print(f"{about['cpu']}, {about['cores']} cores, {about['simd']}; {about['peer']}\n")
    print(table(rows, plan.batch))


if __name__ == "__main__":
    main()
