"""Stores that something else wrote: which of their files belong together, and whether their numbers can be used."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float16

from littune.base.errors import InputError
from littune.base.stores import foreign_embeddings, foreign_metadata
from littune.store.shards import check_shard

_LAYOUT = "each img_emb_N.npy needs its metadata_N.parquet"


def foreign_files(folder: Path) -> list[tuple[Path, Path]]:
    """The embeddings and the metadata of each shard, in the order of their numbers; empty where there are none.

    One file of each belongs together where not both have numbers.

    Raises:
        InputError: files are not numbered one to one.
    """
    img_emb, metadata = foreign_embeddings(folder), foreign_metadata(folder)
    if len(img_emb) == len(metadata) == 1 and None in (_number(img_emb[0]), _number(metadata[0])):
        return [(img_emb[0], metadata[0])]
    embeddings_of, metadata_of = _by_number(img_emb), _by_number(metadata)
    lonely = embeddings_of.keys() ^ metadata_of.keys()
    if lonely:
        number = min(lonely)
        has, lacks = ("embeddings", "metadata") if number in embeddings_of else ("metadata", "embeddings")
        raise InputError(
            f"{folder}: the {len(img_emb)} files of embeddings and {len(metadata)} of metadata are not numbered alike: "
            f"number {number} has {has} and no {lacks}; {_LAYOUT}"
        )
    return [(embeddings_of[number], metadata_of[number]) for number in sorted(embeddings_of)]


def check_foreign(files: Sequence[tuple[Path, Path]]) -> tuple[list[int], int]:
    """The rows of each shard and the width of all, from the headers of the files alone.

    Raises:
        InputError: a file is damaged, has other rows than the one that belongs to it, or another width.
    """
    rows_of_shards, dims = zip(*(check_shard(*pair) for pair in files), strict=True)
    other = next((shard for shard, dim in enumerate(dims) if dim != dims[0]), 0)
    if other:
        raise InputError(
            f"{files[other][0]} holds embeddings of {dims[other]} numbers and {files[0][0].name} of {dims[0]}: "
            "different widths are no one store"
        )
    return list(rows_of_shards), dims[0]


def usable(
    embeddings: Float[np.ndarray, "n dim"], file: Path, number_of: Callable[[int], int]
) -> Float16[np.ndarray, "n dim"]:
    """Embeddings of ``file`` in the store's precision; ``number_of`` says which of its rows one of them is.

    Raises:
        InputError: a value is not a number or is beyond float16's largest, 65504.
    """
    with np.errstate(over="ignore"):
        halves = embeddings.astype(np.float16, copy=False)
    finite = np.isfinite(halves).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        value = embeddings[first][~np.isfinite(halves[first])][0]
        raise InputError(
            f"{file}: row {number_of(first)} (counted from 0) holds {value}, which is no number that float16 holds (at "
            "most 65504); take the row out of it and of its metadata"
        )
    return halves


def _by_number(files: Sequence[Path]) -> dict[int, Path]:
    """Each file under its number."""
    found: dict[int, Path] = {}
    for file in files:
        number = _number(file)
        if number is None:
            raise InputError(f"{file} has no number in its name to tell what belongs to it; {_LAYOUT}")
        other = found.setdefault(number, file)
        if other is not file:
            raise InputError(f"{other} and {file} have one number, so nothing tells what belongs to which; {_LAYOUT}")
    return found


def _number(file: Path) -> int | None:
    """The number that a file's name ends in, however wide that is written."""
    found = re.search(r"(\d+)$", file.stem)
    return None if found is None else int(found[1])
