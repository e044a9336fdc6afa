"""The verbs that use a run: encode, classify, search."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from littune.base.errors import InputError
from littune.base.progress import log
from littune.cli.common import COMPUTE, Flag, app, check_run, check_there, show, split
from littune.config import Compute

Each = Annotated[tuple[str, ...], Parameter(negative="")]
"""A flag that takes one value and may be given several times."""


@app.command
def encode(
    *images: Path,
    run: str,
    out: Path,
    texts: Path | None = None,
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Embed images, or the lines of a text file, as unit float32 rows in a .npy file.

    Args:
        images: Picture files.
        run: The run: a folder, hf:NAME on the hub, or lit:PATH.npz, a published checkpoint.
        out: The .npy file to write.
        texts: A UTF-8 file with one text a line.
        json: Say what was written as JSON.
        compute: Where and how precisely towers run.
    """
    if bool(images) == (texts is not None):
        raise InputError("encode needs either pictures or --texts FILE")
    check_run(run)
    check_there("picture", *images)
    from littune.apps.encoding import encode_to_file

    about = encode_to_file(run, out, images=images, texts=texts, device=compute.device, precision=compute.precision)
    show(about if json else f"{about['rows']} rows of {about['dim']} numbers → {out}", json=json)


@app.command
def classify(
    *images: Path,
    run: str,
    labels: str,
    templates: str = "",
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Say which of some labels fits each picture.

    A file that is no picture is named on stderr and stops none of the others; the exit code is 2 then.

    Args:
        images: Picture files.
        run: The run: a folder, hf:NAME on the hub, or lit:PATH.npz, a published checkpoint.
        labels: The labels, separated by commas.
        templates: Prompt templates: a file, default, class_name_only or clip_best.
        json: Print all labels' scores as JSON.
        compute: Where and how precisely towers run.
    """
    if not images:
        raise InputError("no picture was given; name at least one file")
    check_run(run)
    if labels.rstrip().endswith(","):
        raise InputError('the labels end in a comma; quote the list, as in --labels "cat, dog"')
    from littune.apps.classifying import classify_files
    from littune.model.lit import LiT
    from littune.model.prompts import load_templates

    model = LiT.load(run, device=compute.device, precision=compute.precision)
    records, all_read = [], True
    for result in classify_files(model, images, split(labels), templates=load_templates(templates or "default")):
        if result.problem:
            log(f"littune: {result.problem}")
            all_read = False
        elif json:
            scores = [{"label": score.label, "score": score.score} for score in result.scores]
            records.append({"image": str(result.image), "scores": scores})
        else:
            print(f"{result.image}: " + ", ".join(f"{score.label} {score.score:.1%}" for score in result.scores[:5]))
    if json:
        show(records, json=True)
    if not all_read:
        sys.exit(2)


@app.command
def search(
    query: str = "",
    *,
    run: str,
    store: Path | None = None,
    index: str = "",
    table: str = "littune",
    image: Path | None = None,
    weight: float = 0.5,
    without: Each = (),
    where: Each = (),
    k: Annotated[int, Parameter(name=["-k", "--k"], validator=Number(gte=1))] = 5,
    allow_foreign: Flag = False,
    json: Flag = False,
    compute: Compute = COMPUTE,
) -> None:
    """Find the images of a store that fit some words, are like a picture, or both.

    Args:
        query: The words, quoted.
        run: The run: a folder, hf:NAME on the hub, or lit:PATH.npz, a published checkpoint.
        store: The store to search; with --index, by default the one that it was made of.
        index: What littune index made of a store: the folder of a FAISS index, or postgresql://….
        table: The table in the database.
        image: A picture to find the like of.
        weight: The picture's share where there are words too, from 0 to 1.
        without: Words for what is not wanted; may be given several times.
        where: COLUMN=VALUE, what a column or field of the metadata must be; may be given several times, and of one
            column any of the values will do.
        k: How many images to show.
        allow_foreign: Admit a store that does not say which tower it is of.
        json: Print the hits as JSON.
        compute: Where and how precisely towers run.
    """
    if not query.strip() and image is None:
        raise InputError(
            'the words to search for are missing: littune search "two dogs in the snow" --run … --store … '
            "(or --image PICTURE)"
        )
    check_run(run)
    if store is None and not index:
        raise InputError("there is nothing to search: give --store STORE, or --index DIR")
    check_there("store", *filter(None, [store]), fix="; make it with: littune embed")
    check_there("picture", *filter(None, [image]))
    filters = _filters(where)
    from littune.apps.search import Index, Query
    from littune.model.lit import LiT

    asked = Query(text=query, image=image, weight=weight, without=without)
    model = LiT.load(run, device=compute.device, precision=compute.precision)
    hits = Index(model, store, index=index or None, table=table, allow_foreign=allow_foreign).search(
        asked, k=k, where=filters
    )
    if json:
        show({"query": query, "hits": [hit.to_dict() for hit in hits]}, json=True)
    else:
        for hit in hits:
            print(f"{hit.score:.3f}  {hit.key}  {hit.source}  {hit.caption}")


def _filters(where: Sequence[str]) -> dict[str, list[str]]:
    """``COLUMN=VALUE`` … → the values of each column."""
    found: dict[str, list[str]] = {}
    for given in where:
        column, equals, value = given.partition("=")
        if not column or not equals:
            raise InputError(f"--where {given} is not usable: write it as COLUMN=VALUE")
        found.setdefault(column, []).append(value)
    return found
