"""A connection that asks nothing is closed, however slowly its bytes come."""

import socket
import time

import pytest

from littune.apps.server.http import connections
from tests.apps.server.conftest import Serve, Slow


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SECONDS", 0.5)


def seconds_open(connection: socket.socket, trickle: bytes = b"") -> float:
    """Send a byte now and then; how long the other side keeps the connection."""
    began = time.monotonic()
    connection.settimeout(0.1)
    for byte in [*trickle, *[None] * 50]:
        try:
            if byte is not None:
                connection.sendall(bytes([byte]))
            if not connection.recv(10):
                break
        except TimeoutError:
            continue
        except ConnectionError:
            break
    return time.monotonic() - began


@pytest.mark.parametrize("trickle", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 50])
def test_headers_that_never_end(serve: Serve, trickle: bytes) -> None:
    with socket.create_connection(("127.0.0.1", serve(store=False).port)) as connection:
        assert 0.3 < seconds_open(connection, trickle) < 2


def test_the_clock_runs_again_after_an_answer(serve: Serve) -> None:
    with socket.create_connection(("127.0.0.1", serve(store=False).port)) as connection:
        for _ in range(2):
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while b'"num_images":null}' not in answer:
                answer += connection.recv(1000)
        assert 0.3 < seconds_open(connection, b"POST /classify HTTP/1.1\r\nX: " + b"x" * 50) < 2


def test_work_may_take_longer(serve: Serve) -> None:
    live = serve(slow := Slow(), store=False)
    slow.seconds = 1.2
    assert live.client.post("/embed/text", json={"texts": ["red"]}).status_code == 200
    assert live.client.get("/health").status_code == 200
