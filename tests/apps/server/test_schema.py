"""schemathesis asks what the server's own schema allows, and what it does not: there is no 5xx."""

import base64

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.apps.server.conftest import Live, encoded

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
PICTURE = base64.b64encode(encoded()).decode()


@pytest.mark.parametrize("path", ["/classify", "/search", "/embed/text", "/embed/image", "/health", "/metrics"])
def test_the_schema_holds(shared: Live, path: str) -> None:
    ask(shared, path, max_examples=6 if path == "/classify" else 15)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/classify", "/search", "/embed/text", "/embed/image"])
def test_the_schema_holds_at_length(shared: Live, path: str) -> None:
    ask(shared, path, max_examples=300)


def ask(live: Live, path: str, *, max_examples: int) -> None:
    schema = schemathesis.openapi.from_dict(live.client.get("/openapi.json").json())
    (operation,) = [found.ok() for found in schema.get_all_operations() if found.ok().path == path]
    statuses = set()

    @settings(
        max_examples=max_examples,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(operation))
    def run(case: schemathesis.Case) -> None:
        # Without a picture that can be read, nothing behind the pictures would be asked.
        if isinstance(case.body, dict) and isinstance(case.body.get("image"), str | bytes):
            case.body["image"] = PICTURE if case.media_type == "application/json" else encoded()
        # Nor behind the filters, on columns that there are not.
        if isinstance(case.body, dict) and isinstance(case.body.get("where"), dict):
            case.body["where"] = dict(zip(["size"], case.body["where"].values(), strict=False))
        response = case.call(base_url=f"http://127.0.0.1:{live.port}")
        statuses.add(response.status_code)
        case.validate_response(response, checks=CHECKS)

    run()
    assert 200 in statuses


def cases(operation: schemathesis.APIOperation) -> SearchStrategy[schemathesis.Case]:
    """What the schema allows, and what it does not."""
    allowed, forbidden = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
    return operation.as_strategy(generation_mode=allowed) | operation.as_strategy(generation_mode=forbidden)
