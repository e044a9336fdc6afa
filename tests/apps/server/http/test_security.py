"""Strangers, other sites' pages and rebound names get nothing."""

import httpx
import pytest

from littune.apps.server.http.security import check_binding, is_loopback
from littune.base.errors import InputError
from tests.apps.server.conftest import Live, Serve, error_of, exchange

TOKEN = "a-long-enough-token"


def embed(live: Live, **headers: str) -> httpx.Response:
    return live.client.post("/embed/text", json={"texts": ["red"]}, headers=headers)


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "localhost.example.org", "")))


def test_a_network_needs_a_token() -> None:
    for host in ("0.0.0.0", "::", "example.org"):
        with pytest.raises(InputError, match="give a --token, or bind 127"):
            check_binding(host, "")
        check_binding(host, TOKEN)
    check_binding("127.0.0.1", "")
    for token in ("short", "x" * 15, "with a space in the middle", "ünïcödé-but-lóng", "x" * 20 + "\n"):
        with pytest.raises(InputError, match="token of"):
            check_binding("127.0.0.1", token)


def test_a_rebound_name_is_refused(serve: Serve) -> None:
    live = serve()
    for host in ("evil.example", f"evil.example:{live.port}", "127.0.0.1.evil.example", "", "[::1", "192.168.0.1"):
        assert "no name of loopback" in error_of(embed(live, host=host), 403)
        assert live.client.get("/metrics", headers={"host": host}).status_code == 403
    for host in ("localhost", f"localhost:{live.port}", "127.0.0.1:1", "[::1]:8000", "LOCALHOST"):
        assert embed(live, host=host).status_code == 200
    assert b"403" in exchange(live.port, b"GET /metrics HTTP/1.0\r\n\r\n")
    assert b"400" in exchange(live.port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")


def test_other_origins_are_refused(serve: Serve) -> None:
    live = serve()
    own = f"127.0.0.1:{live.port}"
    for origin in (
        "https://evil.example",
        "null",
        f"http://localhost:{live.port}",
        "http://127.0.0.1:1",
        "",
        "http://[",
    ):
        assert "another site" in error_of(embed(live, origin=origin), 403)
    answer = embed(live, origin=f"http://{own}")
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    assert answer.headers["x-content-type-options"] == "nosniff"
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert live.client.options("/classify", headers=asked).status_code == 403


def test_the_token_opens(serve: Serve) -> None:
    live = serve(token=TOKEN)
    assert "missing" in error_of(embed(live), 401)
    assert embed(live).headers["www-authenticate"] == "Bearer"
    for given in (f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer", TOKEN, f"Bearer {TOKEN[:-1]}", "Bearer \xff\xfe"):
        answer = live.client.get("/metrics", headers={"authorization": given.encode("latin-1")})
        assert "not the server's" in error_of(answer, 401)
    for given in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert embed(live, authorization=given).status_code == 200
    assert live.client.get("/no/such/path").status_code == 401


def test_a_token_is_not_asked_for_what_is_the_same_everywhere(serve: Serve) -> None:
    live = serve(token=TOKEN)
    for path in ("/health", "/docs", "/openapi.json"):
        assert live.client.get(path).status_code == 200


def test_bound_to_a_network_any_name_will_do(serve: Serve) -> None:
    live = serve(token=TOKEN, host="0.0.0.0")
    assert embed(live, host="pictures.example", authorization=f"Bearer {TOKEN}").status_code == 200
    assert embed(live, host="pictures.example").status_code == 401
    asked = {"host": "pictures.example", "authorization": f"Bearer {TOKEN}", "origin": "https://evil.example"}
    assert embed(live, **asked).status_code == 403
