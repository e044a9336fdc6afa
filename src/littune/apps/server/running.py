"""A server from start to end: a socket, uvicorn, and what is under way when it is told to stop."""

import socket
from pathlib import Path

import uvicorn

from littune.apps.search import Index
from littune.apps.server.app import create_app
from littune.apps.server.http.connections import PatientlyTimed
from littune.apps.server.http.security import check_binding
from littune.apps.server.limits import Limits
from littune.base.errors import InputError
from littune.base.memory import keep_freed_memory
from littune.base.progress import log
from littune.model.lit import LiT

_CONNECTIONS = 1024


def serve(
    run: str,
    store: Path | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str = "",
    limits: Limits | None = None,
    allow_foreign: bool = False,
    device: str = "cpu",
    precision: str = "auto",
    workers: int = 2,
) -> None:
    """Serve a run until the process is told to stop; what is under way then is finished first.

    Raises:
        InputError: the run, the store or the address cannot be used, or anyone could reach it.
    """
    check_binding(host, token)
    limits = limits or Limits()
    with _bound(host, port) as bound:
        keep_freed_memory()
        model = LiT.load(run, device=device, precision=precision)
        index = None if store is None else Index(model, store, allow_foreign=allow_foreign)
        app = create_app(model, index, limits=limits, host=host, token=token, workers=workers)
        # What is slow the first time is done before anyone waits for it.
        model.encode_text(["a photo"])
        server = uvicorn.Server(uvicorn_config(app, limits))
        log(f"serving {run} at {_url(bound)}; what can be asked is at {_url(bound)}/docs, Ctrl-C ends it")
        server.run(sockets=[bound])


def uvicorn_config(app: object, limits: Limits) -> uvicorn.Config:
    """How uvicorn serves ``app``: one process, for there is one model."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=PatientlyTimed,
        ws="none",
        lifespan="on",
        access_log=False,
        # Errors alone, with their tracebacks; they go to stderr where nothing else was set up.
        log_config=None,
        log_level="error",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=int(limits.timeout) + 1,
    )


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_CONNECTIONS)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot bind {host}:{port} ({error}); choose another --host or --port") from error


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"
