"""A page of what can be asked, made of the OpenAPI schema; unlike FastAPI's own it loads nothing from anywhere."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from starlette.responses import HTMLResponse

from littune.evaluation.report.markup import Html, join, tag

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; font-family: ui-monospace, monospace; }
pre { overflow-x: auto; padding: .8rem; border-radius: .5rem; background: #8882; font-size: .85rem; }
summary { cursor: pointer; }
"""


def docs_page(openapi: Mapping[str, Any]) -> HTMLResponse:
    """The page of a schema."""
    head = join((tag("meta", {"charset": "utf-8"}), tag("title", None, openapi["info"]["title"])))
    # A style is no text: quotes in it must stay as they are.
    style = tag("style", None, Html(_STYLE))
    intro = tag("p", None, openapi["info"]["summary"], " The schema for programs: ", _link("/openapi.json"))
    routes = [
        _route(method, path, route) for path, methods in openapi["paths"].items() for method, route in methods.items()
    ]
    body = tag("body", None, tag("h1", None, openapi["info"]["title"]), intro, *routes, _answers(openapi))
    page = f"<!doctype html>\n{tag('html', {'lang': 'en'}, tag('head', None, head, style), body)}"
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


def _route(method: str, path: str, route: Mapping[str, Any]) -> Html:
    title = tag("h2", None, f"{method.upper()} {path}")
    bodies = route.get("requestBody", {}).get("content", {})
    asked = [_folded(content_type, content["schema"]) for content_type, content in bodies.items()]
    statuses = tag("ul", None, *_statuses(route["responses"]))
    return join((title, tag("p", None, route.get("description", "")), *asked, statuses))


def _statuses(responses: Mapping[str, Any]) -> Iterator[Html]:
    for status, response in responses.items():
        kinds = [content.get("schema", {}).get("$ref", "") for content in response.get("content", {}).values()]
        names = ", ".join(kind.rpartition("/")[2] for kind in kinds if kind)
        yield tag("li", None, f"{status} {response['description']}" + (f" ({names})" if names else ""))


def _answers(openapi: Mapping[str, Any]) -> Html:
    schemas = openapi["components"]["schemas"]
    return join((tag("h2", None, "Answers"), *(_folded(name, schema) for name, schema in schemas.items())))


def _folded(title: str, schema: object) -> Html:
    shown = tag("pre", None, json.dumps(schema, indent=1, ensure_ascii=False))
    return tag("details", None, tag("summary", None, title), shown)


def _link(target: str) -> Html:
    return tag("a", {"href": target}, target)
