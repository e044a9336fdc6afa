"""How many pictures a second `littune serve` labels with a fixed label set, beside transformers' pipeline.

    python benchmarks/serve.py [--labels 100] [--clients 1 8 64] [--seconds 8] [--json]

Both serve the same towers, whose weights are drawn: a ViT-Ti/16 of timm and a BERT of MiniLM-L6's size, which
`littune export --to transformers` hands to the pipeline `zero-shot-image-classification`. The pipeline stands behind
the same shell, FastAPI on uvicorn with the same form, and runs in one thread, as that is its fastest here. Each has a
process of its own, and they take turns, so that what else the machine is doing hits both. A client sends its next
request when it has its answer; what is not answered with 200 and all labels is lost.
"""

import argparse
import asyncio
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"

import httpx
import numpy as np
import torch
import transformers
import uvicorn
from fastapi import FastAPI, File, Form
from PIL import Image

from littune.apps.demo_pictures import LABELS
from littune.apps.export import ExportOptions, export
from littune.apps.server.app import create_app
from littune.apps.server.limits import Limits
from littune.apps.server.running import uvicorn_config
from littune.base.memory import keep_freed_memory
from littune.base.progress import log
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.from_timm import build_timm
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import ImageTower
from littune.towers.text.from_hf import HFEncoder
from littune.towers.text.tokenizer import train_tokenizer
from littune.towers.text.tower import TextTower

NAMES = [f"{color} {label}" for color in ("red", "green", "blue", "white", "black") for label in LABELS]
TEMPLATE = "a photo of a {}."
SERVERS = ("littune", "pipeline")


@dataclass(frozen=True, kw_only=True)
class Load:
    """What came of so many clients in so many seconds."""

    server: str
    clients: int
    labels: int
    requests: int
    lost: int
    requests_per_second: float
    median_ms: float
    p99_ms: float


def main() -> None:
    options = _options()
    if options.serve:
        _serve(options.serve, options.work, options.port)
        return
    loads: list[Load] = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _write_model(work)
        with _running("littune", work, 8711), _running("pipeline", work, 8712):
            for labels in options.labels:
                for clients in options.clients:
                    for server, port in zip(SERVERS, (8711, 8712), strict=True):
                        loads.append(asyncio.run(_load(server, port, clients, labels, options.seconds)))
                        log(_row(loads[-1]))
    if options.json:
        print(json.dumps([asdict(load) for load in loads], indent=1))
    else:
        _print_table(loads)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="+", default=[100])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _write_model(work: Path) -> None:
    """A run and its export for transformers, with drawn weights."""
    torch.manual_seed(0)
    trunk = build_timm({"kind": "timm", "name": "vit_tiny_patch16_224", "num_classes": 10})
    preprocess = Preprocess(size=224, resize=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    tower = ImageTower(spec="timm:vit_tiny_patch16_224", trunk=trunk, preprocess=preprocess)
    tokenizer = train_tokenizer([TEMPLATE.format(label) for label in NAMES], vocab_size=4000)
    config = transformers.BertConfig(
        vocab_size=30_522, hidden_size=384, num_attention_heads=12, num_hidden_layers=6, intermediate_size=1536
    )
    bert = transformers.BertModel._from_config(config, add_pooling_layer=False, attn_implementation="eager")
    text = TextTower(HFEncoder(bert.eval(), config), tokenizer, spec="bert", pooling="first", max_tokens=64, pad_id=0)
    model = LiT(text=text, reference=ImageReference.of(tower), center=torch.zeros(tower.dim)).eval()
    model.image_tower = tower
    model.save(work / "run", bundle=True)
    export(str(work / "run"), to="transformers", out=work / "transformers", options=ExportOptions())


def _serve(server: str, work: Path, port: int) -> None:
    """Serve until killed."""
    keep_freed_memory()
    limits = Limits()
    app = create_app(LiT.load(work / "run"), limits=limits) if server == "littune" else _pipeline_app(work)
    config = uvicorn_config(app, limits)
    config.port = port
    uvicorn.Server(config).run()


def _pipeline_app(work: Path) -> FastAPI:
    """The pipeline behind the same form."""
    classify = transformers.pipeline("zero-shot-image-classification", model=str(work / "transformers"))
    thread = ThreadPoolExecutor(1)
    app = FastAPI()

    def run(encoded: bytes, labels: list[str], template: str) -> list[dict[str, object]]:
        picture = Image.open(io.BytesIO(encoded)).convert("RGB")
        found: list[dict[str, object]] = classify(picture, candidate_labels=labels, hypothesis_template=template)
        return found

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/classify")
    async def of_picture(
        image: Annotated[bytes, File()], labels: Annotated[list[str], Form()], templates: Annotated[str, Form()]
    ) -> dict[str, object]:
        loop = asyncio.get_running_loop()
        return {"scores": await loop.run_in_executor(thread, run, image, labels, templates)}

    return app


@contextmanager
def _running(server: str, work: Path, port: int) -> Iterator[None]:
    """A server in a process of its own."""
    command = [sys.executable, __file__, "--serve", server, "--work", str(work), "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, f"{server} did not start"
                try:
                    httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
                    break
                except httpx.HTTPError:
                    time.sleep(0.2)
            yield
        finally:
            process.terminate()


async def _load(server: str, port: int, clients: int, labels: int, seconds: float) -> Load:
    """Ask for ``seconds``, after a first round that is not counted."""
    fields = {"labels": NAMES[:labels], "templates": TEMPLATE}
    pictures = _pictures()
    times: list[float] = []
    lost = 0
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120, limits=limits) as client:

        async def ask(number: int) -> bool:
            try:
                files = {"image": pictures[number % len(pictures)]}
                answer = await client.post("/classify", files=files, data=fields)
                return answer.status_code == 200 and len(answer.json()["scores"]) == labels
            except httpx.HTTPError:
                return False

        async def keep_asking(number: int, end: float) -> None:
            nonlocal lost
            while (began := time.perf_counter()) < end:
                answered = await ask(number)
                lost += not answered
                times.append(time.perf_counter() - began)

        await ask(0)
        began = time.perf_counter()
        await asyncio.gather(*(keep_asking(number, began + seconds) for number in range(clients)))
        took = time.perf_counter() - began
    return Load(
        server=server,
        clients=clients,
        labels=labels,
        requests=len(times),
        lost=lost,
        requests_per_second=(len(times) - lost) / took,
        median_ms=1000 * statistics.median(times),
        p99_ms=1000 * float(np.percentile(times, 99)),
    )


def _pictures() -> list[bytes]:
    """Smooth pictures of 640 × 480, as JPEG files of some 20 kB."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(16):
        file = io.BytesIO()
        small = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
        small.resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        files.append(file.getvalue())
    return files


def _print_table(loads: list[Load]) -> None:
    print("| labels | clients | server | requests/s | median ms | p99 ms | requests | lost |")
    print("|---|---|---|---|---|---|---|---|")
    for load in loads:
        print(_row(load))


def _row(load: Load) -> str:
    numbers = f"{load.requests_per_second:.1f} | {load.median_ms:.0f} | {load.p99_ms:.0f}"
    return f"| {load.labels} | {load.clients} | {load.server} | {numbers} | {load.requests} | {load.lost} |"


if __name__ == "__main__":
    main()
