"""The page of what can be asked loads nothing, and says it all."""

import re

from littune.apps.server.http.docs import docs_page
from tests.apps.server.conftest import Serve


def test_the_page_names_every_route_and_loads_nothing(serve: Serve) -> None:
    live = serve()
    page = live.client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in live.client.get("/openapi.json").json()["paths"]:
        assert path in page.text
    for word in ("multipart/form-data", "labels", "maxItems", "Problem"):
        assert word in page.text
    assert re.findall(r'(?:src|href)="([^"]*)"', page.text) == ["/openapi.json"]
    assert "<script" not in page.text and "url(" not in page.text


def test_other_pages_of_fastapi_are_off(serve: Serve) -> None:
    live = serve()
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert live.client.get(path).status_code == 404


def test_a_schema_is_escaped() -> None:
    route = {"description": "<script>alert(1)</script>", "responses": {}}
    openapi = {
        "info": {"title": "<b>x</b>", "summary": "s"},
        "paths": {"/x": {"get": route}},
        "components": {"schemas": {"<i>": {}}},
    }
    page = bytes(docs_page(openapi).body).decode()
    assert "<script" not in page and "<b>" not in page and "<i>" not in page
