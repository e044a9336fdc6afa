"""Bodies, times and numbers are bounded, and who has gone is not worked for."""

import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
from fastapi import FastAPI

from littune.apps.server.http.gate import Gate
from tests.apps.server.conftest import Live, Serve, Slow, error_of, exchange

HEAD = b"POST /embed/text HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
MB = b" " * (1 << 20)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def ask(live: Live, text: str = "red") -> httpx.Response:
    return live.client.post("/embed/text", json={"texts": [text]})


def asking(live: Live, number: int) -> list[threading.Thread]:
    threads = [threading.Thread(target=ask, args=(live, f"red {place}")) for place in range(number)]
    for thread in threads:
        thread.start()
    return threads


def until_under_way(live: Live, number: int) -> None:
    """Wait until so many requests are under way beside the one that looks."""
    for _ in range(500):
        if live.counted("littune_requests_under_way") == number + 1:
            return
        time.sleep(0.01)
    raise AssertionError("never so many")


def gate_of(live: Live) -> Gate:
    layer = live.server.config.loaded_app
    while not isinstance(layer, Gate):
        layer = layer.middleware_stack if isinstance(layer, FastAPI) else layer.app
    return layer


def test_a_body_that_is_announced_too_large(serve: Serve) -> None:
    live = serve(max_body_mb=1)
    answer = live.client.post("/classify", files={"image": MB}, data={"labels": "red"})
    assert "limit of 1 MB" in error_of(answer, 413)
    # It is refused before it is sent.
    assert status_of(exchange(live.port, HEAD + b"Content-Length: 99999999999\r\nConnection: close\r\n\r\n")) == 413
    assert ask(live).status_code == 200


def test_a_body_without_an_announced_length(serve: Serve) -> None:
    live = serve(max_body_mb=1)
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(12):
            sent += 1
            yield MB[: 1 << 18]

    kind = {"content-type": "application/json"}
    assert "limit of 1 MB" in error_of(live.client.post("/embed/text", content=chunks(), headers=kind), 413)
    assert live.client.get("/health").status_code == 200


def test_a_body_in_pieces_is_put_together(serve: Serve) -> None:
    body = json.dumps({"texts": ["red"] * 200}).encode()
    pieces = (body[start : start + 100] for start in range(0, len(body), 100))
    answer = serve().client.post("/embed/text", content=pieces, headers={"content-type": "application/json"})
    assert len(answer.json()["embeddings"]) == 200


def test_a_body_that_comes_too_slowly(serve: Serve) -> None:
    live = serve(body_timeout=0.3)
    answer = exchange(live.port, HEAD + b"Content-Length: 100\r\nConnection: close\r\n\r\n{", wait=5)
    assert status_of(answer) == 408 and b"within 0.3 s" in answer
    assert ask(live).status_code == 200


def test_an_answer_that_takes_too_long(serve: Serve) -> None:
    live = serve(slow := Slow(), timeout=0.3)
    slow.seconds = 1.0
    assert "within 0.3 s" in error_of(ask(live), 504)
    slow.seconds = 0.0
    time.sleep(0.8)
    assert ask(live).status_code == 200


def test_more_than_may_be_under_way(serve: Serve) -> None:
    live = serve(slow := Slow(), max_queue=2)
    slow.seconds = 0.8
    threads = asking(live, 2)
    until_under_way(live, 2)
    answer = ask(live)
    assert "2 requests are under way" in error_of(answer, 503) and answer.headers["retry-after"] == "1"
    assert live.client.get("/health").status_code == 200
    for thread in threads:
        thread.join()
    assert ask(live).status_code == 200


def test_more_than_one_client_may_have_under_way(serve: Serve) -> None:
    live = serve(slow := Slow(), max_per_client=2)
    slow.seconds = 0.8
    threads = asking(live, 2)
    until_under_way(live, 2)
    answer = ask(live)
    assert "2 requests of yours" in error_of(answer, 429) and answer.headers["retry-after"] == "1"
    for thread in threads:
        thread.join()
    assert ask(live).status_code == 200


def test_more_bytes_than_may_be_held(serve: Serve) -> None:
    live = serve(max_body_mb=1, body_timeout=5)
    gate_head = HEAD + b"Content-Length: 1048576\r\n\r\n"
    waiting = [socket.create_connection(("127.0.0.1", live.port)) for _ in range(16)]
    try:
        for connection in waiting:
            connection.sendall(gate_head + MB[:-1])
        gate = gate_of(live)
        while gate.held < 16 * (len(MB) - 1):
            time.sleep(0.01)
        # A few bytes are left of the 16 MB.
        big = live.client.post("/classify", files={"image": MB[:1000]}, data={"labels": "red"})
        assert "16 MB of requests are held" in error_of(big, 503)
    finally:
        for connection in waiting:
            connection.close()
    until_under_way(live, 0)
    assert gate.held == 0 and not gate.under_way
    assert ask(live).status_code == 200


def test_who_has_gone_leaves_the_batch(serve: Serve) -> None:
    live = serve(slow := Slow(), store=False)
    slow.seconds = 0.6
    first = asking(live, 1)
    assert slow.begun.wait(5)
    body = json.dumps({"texts": ["gone"] * 5}).encode()
    with socket.create_connection(("127.0.0.1", live.port)) as connection:
        connection.sendall(HEAD + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until_under_way(live, 2)
    until_under_way(live, 1)
    second = ask(live, "after")
    first[0].join()
    assert second.status_code == 200
    assert not any("gone" in batch for batch in slow.batches)
    assert live.counted("littune_requests_total", path="/embed/text", status="gone") == 1


def test_what_is_under_way_is_finished_before_the_end(serve: Serve) -> None:
    live = serve(slow := Slow(), store=False)
    slow.seconds = 0.8
    answers: list[httpx.Response] = []
    thread = threading.Thread(target=lambda: answers.append(ask(live)))
    thread.start()
    assert slow.begun.wait(5)
    live.stop()
    thread.join()
    assert answers[0].status_code == 200


def test_stopping_does_not_wait_for_idle_connections(serve: Serve) -> None:
    live = serve(store=False)
    ask(live)
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", live.port)):
        live.stop()
    assert time.monotonic() - began < 3
