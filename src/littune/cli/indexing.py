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
    to: str = "",
    table: str = "littune",
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Make an index of a store for littune search --index: a FAISS index in a folder, or a table of PostgreSQL.

    What a FAISS index finds is measured against exact search. A table is made to hold what the store holds, with
    pgvector; of one that is there, rows that came are added and those gone removed.

    Up to some million rows a search needs none. An index serves all runs that have the same centre and no image head,
    whatever their text towers, and those that share an image head.

    Args:
        store: The store.
        run: The run whose space its images are projected into.
        out: The folder to write.
        kind: What kind of FAISS index: a graph over all rows (hnsw), or lists of short codes (ivfpq).
        to: Instead of --out, the database to fill: postgresql://USER:PASSWORD@HOST/NAME.
        table: The table in the database.
        allow_foreign: Admit a store that does not say which tower it is of.
        json: Say what was made as JSON.
        compute: Where and how precisely towers run.
    """
    if (out is None) != bool(to):
        raise InputError("index needs either --out DIR or --to postgresql://…")
    if to and not to.startswith(("postgresql://", "postgres://")):
        raise InputError("--to takes the address of a database: postgresql://USER:PASSWORD@HOST/NAME")
    check_run(run)
    check_there("store", store, fix="; make it with: littune embed")
    from littune.model.lit import LiT

    model = LiT.load(run, device=compute.device, precision=compute.precision)
    if out is None:
        from littune.apps.search.filling import fill_table

        filled = fill_table(model, store, to, table=table, allow_foreign=allow_foreign)
        show(filled.to_dict() if json else filled.to_text(), json=json)
        return
    from littune.apps.search.building import build_index

    built = build_index(model, store, out, kind=kind, allow_foreign=allow_foreign)
    show(built.to_dict() if json else built.to_text(), json=json)
