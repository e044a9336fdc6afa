"""A real server on loopback for the colour world."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from littune.apps.search import Index
from littune.apps.server.app import create_app
from littune.apps.server.limits import Limits
from littune.apps.server.running import uvicorn_config
from littune.store.embed import provenance_of
from littune.store.manifest import Settings
from littune.store.shards import Row
from littune.store.writer import Batch, open_writer
from tests.evaluation.conftest import COLORS, ColorReader, make_tower

ROWS = [
    Row(key=key, source="by hand", texts=(f"a {key} square",), fields={"size": size})
    for key, size in (("red", 1), ("green", 2), ("blue", 3), ("red again", 4))
]
EMBEDDINGS = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]], np.float32)


@dataclass(kw_only=True)
class Live:
    """A server that runs, and a client of it."""

    client: httpx.Client
    port: int
    server: uvicorn.Server
    thread: threading.Thread
    model: ColorReader

    def stop(self) -> None:
        """Tell it to stop, and wait until it has."""
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()

    def counted(self, name: str, **labels: str) -> float:
        """A number of /metrics; 0 where it is not there."""
        wanted = "{" + ",".join(f'{key}="{value}"' for key, value in labels.items()) + "}" if labels else ""
        lines = [line.rpartition(" ") for line in self.client.get("/metrics").text.splitlines()]
        return next((float(value) for line, _, value in lines if line == name + wanted), 0.0)


class Slow(ColorReader):
    """Each batch of texts takes ``seconds``; ``begun`` says that one runs."""

    def __init__(self) -> None:
        super().__init__(make_tower())
        self.seconds = 0.0
        self.begun = threading.Event()
        self.batches: list[list[str]] = []

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        self.batches.append([texts] if isinstance(texts, str) else list(texts))
        self.begun.set()
        time.sleep(self.seconds)
        return super().encode_text(texts)


Serve = Callable[..., Live]


def start(
    store: Path | None, model: ColorReader | None = None, *, token: str = "", host: str = "127.0.0.1", **limits: float
) -> Live:
    """A server, when it is ready."""
    model = model or ColorReader(make_tower())
    kept = Limits(**limits)
    app = create_app(model, Index(model, store) if store else None, limits=kept, host=host, token=token)
    server = uvicorn.Server(uvicorn_config(app, kept))
    bound = socket.create_server(("127.0.0.1", 0), backlog=256)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = bound.getsockname()[1]
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
    return Live(client=client, port=port, server=server, thread=thread, model=model)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of four colours."""
    path = tmp_path_factory.mktemp("served") / "store"
    tower = make_tower()
    settings = Settings(
        kind="images",
        pairs="by hand",
        texts=(),
        tower=tower.spec,
        identity=tower.identity,
        classnames=None,
        templates=None,
    )
    with open_writer(path, settings, provenance_of(tower)) as writer:
        writer.append(Batch(embeddings=EMBEDDINGS, rows=ROWS))
        writer.finish()
    return path


@pytest.fixture
def serve(store_path: Path) -> Iterator[Serve]:
    """Start servers, which are stopped after the test."""
    running: list[Live] = []

    def started(model: ColorReader | None = None, *, store: bool = True, **options: Any) -> Live:
        running.append(start(store_path if store else None, model, **options))
        return running[-1]

    yield started
    for live in running:
        live.client.close()
        live.stop()


@pytest.fixture(scope="session")
def shared(store_path: Path) -> Iterator[Live]:
    """A server for tests that leave it as it is."""
    live = start(store_path)
    yield live
    live.client.close()
    live.stop()


def encoded(color: str = "red", size: tuple[int, int] = (8, 8), kind: str = "PNG") -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    Image.new("RGB", size, COLORS[color]).save(file, kind)
    return file.getvalue()


def exchange(port: int, sent: bytes, *, wait: float = 10) -> bytes:
    """What a server answers to these bytes, until it closes the connection or ``wait`` is over."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(sent)
        answer = b""
        try:
            while part := connection.recv(65536):
                answer += part
        except TimeoutError:
            pass
        return answer


def error_of(response: httpx.Response, status: int) -> str:
    """The message of a refusal, which is one line of JSON."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    (message,) = response.json().values()
    assert set(response.json()) == {"error"} and "\n" not in message
    return str(message)
