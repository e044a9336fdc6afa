"""The verb that makes stores quick to search: index."""

from pathlib import Path
from typing import Literal

from littune.base.errors import InputError
from littune.cli.common import COMPUTE, Flag, app, check_run, check_there, show
from littune.config import Compute


@app.command
def index(
    store: Path,
    *,
    run: str,
    out: Path | None = None,
    kind: Literal["hnsw", "ivfpq"] = "hnsw",
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Make a FAISS index of a store for littune search --index, and measure what it finds against exact search.

    Up to some million rows a search needs none. An index serves all runs that have the same centre and no image head,
    whatever their text towers, and those that share an image head.

    Args:
        store: The store.
        run: The run whose space its images are projected into.
        out: The folder to write.
        kind: A graph over all rows (hnsw), or lists of short codes (ivfpq).
        allow_foreign: Admit a store that does not say which tower it is of.
        json: Say what was made as JSON.
        compute: Where and how precisely towers run.
    """
    if out is None:
        raise InputError("index needs --out DIR")
    check_run(run)
    check_there("store", store, fix="; make it with: littune embed")
    from littune.apps.search.building import build_index
    from littune.model.lit import LiT

    model = LiT.load(run, device=compute.device, precision=compute.precision)
    built = build_index(model, store, out, kind=kind, allow_foreign=allow_foreign)
    show(built.to_dict() if json else built.to_text(), json=json)
