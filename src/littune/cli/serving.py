"""The verb that serves: serve."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from littune.apps.server.limits import Limits
from littune.base.errors import MissingExtraError
from littune.cli.common import COMPUTE, Flag, app, check_run, check_there
from littune.config import Compute

_LIMITS = Limits()


@app.command
def serve(
    *,
    run: str,
    store: Path | None = None,
    host: str = "127.0.0.1",
    port: Annotated[int, Parameter(validator=Number(gte=0, lte=65535))] = 8000,
    token: Annotated[str, Parameter(env_var="LITTUNE_TOKEN")] = "",
    allow_foreign: Flag = False,
    limits: Limits = _LIMITS,
    compute: Compute = COMPUTE,
) -> None:
    """Answer over HTTP: labels for pictures, search, embeddings.

    Args:
        run: The run: a folder, hf:NAME on the hub, or lit:PATH.npz, a published checkpoint.
        store: The store that /search searches.
        host: The address to bind; other than loopback it needs a token.
        port: The port; 0 for any that is free.
        token: What requests must carry as "Authorization: Bearer TOKEN"; better given in the environment.
        allow_foreign: Admit a store that does not say which tower it is of.
        limits: What the server takes on.
        compute: Where and how precisely towers run.
    """
    check_run(run)
    if store is not None:
        check_there("store", store, fix="; make it with: littune embed")
    try:
        from littune.apps.server.running import serve as serve_run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("littune"):
            raise
        raise MissingExtraError("littune serve", "serve") from error
    serve_run(
        run,
        store,
        host=host,
        port=port,
        token=token,
        limits=limits,
        allow_foreign=allow_foreign,
        device=compute.device,
        precision=compute.precision,
        workers=compute.workers,
    )
