"""The routes: what is asked of a model over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from littune.apps.search import Index
from littune.apps.server.engine import Engine
from littune.apps.server.http.bodies import body_schema, question
from littune.apps.server.http.docs import docs_page
from littune.apps.server.http.gate import Gate
from littune.apps.server.http.metrics import CONTENT_TYPE, Measured, Metrics
from littune.apps.server.http.refusals import Refusal, error_response
from littune.apps.server.http.security import Guard
from littune.apps.server.limits import Limits
from littune.apps.server.schemas import (
    Classification,
    ClassifyQuestion,
    Embedding,
    Embeddings,
    Found,
    Health,
    Hits,
    PictureQuestion,
    Problem,
    Scored,
    SearchQuestion,
    TextsQuestion,
)
from littune.base.errors import LittuneError
from littune.model.lit import LiT

router = APIRouter()

_REFUSALS = {
    401: "The token is missing or wrong.",
    403: "Another host or origin.",
    408: "The body took too long to come.",
    413: "The body is too large.",
    415: "Neither JSON nor a form.",
    422: "Something in the body cannot be used.",
    429: "Too many requests of one client.",
    503: "Too many requests.",
    504: "The answer took too long.",
}


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem, "description": _REFUSALS[status]} for status in statuses}


_ASKING = _problems(*_REFUSALS)
_LOOKING = _problems(401, 403)


def _engine(request: Request) -> Engine:
    return cast(Engine, request.app.state.engine)


Working = Annotated[Engine, Depends(_engine)]


@router.post("/classify", responses=_ASKING, openapi_extra=body_schema(ClassifyQuestion))
async def classify(
    asked: Annotated[ClassifyQuestion, Depends(question(ClassifyQuestion))], engine: Working
) -> Classification:
    """Say which of some labels fits a picture."""
    scores = await engine.classify(asked.image, asked.labels, asked.templates)
    return Classification(scores=[Scored(label=score.label, score=score.score) for score in scores])


@router.post("/search", responses=_ASKING, openapi_extra=body_schema(SearchQuestion))
async def search(asked: Annotated[SearchQuestion, Depends(question(SearchQuestion))], engine: Working) -> Hits:
    """Find the pictures of the store that fit some words, a picture, or both."""
    hits = await engine.search(
        asked.text, asked.image, weight=asked.weight, without=asked.without, k=asked.k, where=asked.where
    )
    return Hits(hits=[Found.model_validate(hit.to_dict()) for hit in hits])


@router.post("/embed/text", responses=_ASKING, openapi_extra=body_schema(TextsQuestion, form=False))
async def embed_text(
    asked: Annotated[TextsQuestion, Depends(question(TextsQuestion, form=False))], engine: Working
) -> Embeddings:
    """Embed texts as unit vectors."""
    return Embeddings(embeddings=[vector.tolist() for vector in await engine.embed_texts(asked.texts)])


@router.post("/embed/image", responses=_ASKING, openapi_extra=body_schema(PictureQuestion))
async def embed_image(
    asked: Annotated[PictureQuestion, Depends(question(PictureQuestion))], engine: Working
) -> Embedding:
    """Embed a picture as a unit vector."""
    return Embedding(embedding=(await engine.embed_image(asked.image)).tolist())


@router.get("/health", responses=_problems(403))
async def health(engine: Working) -> Health:
    """Say that the server runs; it asks for no token."""
    return Health(dim=engine.model.dim, num_images=None if engine.index is None else len(engine.index))


@router.get("/metrics", responses=_LOOKING, response_class=Response)
async def metrics(request: Request) -> Response:
    """Count requests, batches and the cache's finds, for Prometheus."""
    return Response(cast(Metrics, request.app.state.metrics).text(), media_type=CONTENT_TYPE)


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Show what can be asked, on a page that loads nothing."""
    return docs_page(request.app.openapi())


def create_app(
    model: LiT,
    index: Index | None = None,
    *,
    limits: Limits | None = None,
    host: str = "127.0.0.1",
    token: str = "",
    workers: int = 2,
) -> FastAPI:
    """The ASGI application.

    Args:
        model: the model to serve.
        index: what ``/search`` searches, if anything.
        limits: what it takes on.
        host: what it is bound to; on loopback, requests must ask for loopback by name.
        token: what requests must carry as ``Authorization: Bearer``; empty for none.
        workers: threads that decode pictures.

    Raises:
        InputError: the model's image tower cannot be loaded.
    """
    limits = limits or Limits()
    app = FastAPI(
        title="littune",
        summary="Zero-shot labels, search and embeddings from a tuned pair of towers.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_closing,
        exception_handlers=_HANDLERS,
    )
    app.include_router(router)
    app.state.metrics = Metrics(frozenset(app.openapi()["paths"]))
    app.state.engine = Engine(model, index, limits=limits, metrics=app.state.metrics, workers=workers)
    # The last is the outermost.
    app.add_middleware(Gate, limits=limits)
    app.add_middleware(Guard, host=host, token=token)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


@asynccontextmanager
async def _closing(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.engine.close()


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response


async def _on_bad_input(request: Request, error: Exception) -> Response:
    return error_response(422, str(error))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(
        error.status_code, f"{error.detail}: {request.method} {request.url.path[:100]}", error.headers
    )


_HANDLERS: dict[int | type[Exception], Any] = {
    Refusal: _on_refusal,
    LittuneError: _on_bad_input,
    HTTPException: _on_http_error,
}
