"""``open_pairs``: from a spec, what it names. The table of specs is docs/data.md.

Detection goes from the plainest sign to the least plain one, and says what it found in ``Source.kind``.
What could be read in two ways and has no other spelling is an error that shows the spellings.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError
from littune.base.stores import is_store
from littune.pairs.base import Source
from littune.pairs.folders import (
    child_folders,
    file_names,
    is_image,
    open_class_folders,
    open_text_folders,
)
from littune.pairs.patterns import is_pattern, matching_files
from littune.pairs.shards.benchmark import is_benchmark, open_benchmark, read_set_files
from littune.pairs.shards.part import open_shards

_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|pipe:")
_TABLES = ("csv", "tsv", "jsonl", "ndjson", "parquet")


def open_pairs(spec: str | Path, *, texts: Sequence[str] = (), image_field: str | None = None) -> Source:
    """The image-text pairs or labelled images that ``spec`` names.

    Args:
        spec: tar shards or tables by name or pattern, a folder, or ``hf:NAME_OR_DIR[@CONFIG][#SPLIT]``.
        texts: the fields that supply texts; by default ``captions``, else ``caption`` (the ``.txt``).
        image_field: the column, or in tar shards the suffix, that holds the image; by default it is known
            by its usual names.

    Raises:
        InputError: nothing is there, it holds something else, or it could be read in several ways.
        MissingExtraError: an ``hf:`` spec without the extra ``hf``.
    """
    name = str(spec)
    wanted = tuple(texts)
    if _REMOTE.match(name):
        raise InputError(f"{name}: only files on this machine are read; download it first, or write hf:NAME")
    if name.startswith("hf:"):
        # Imported here as the libraries of tables take a while, which shards need not wait for.
        from littune.pairs.tables.hub import open_hub

        return open_hub(name, texts=wanted, image_field=image_field)
    path = Path(name).expanduser()
    if is_pattern(str(path)):
        return _open_files(name, matching_files(str(path)), wanted, image_field)
    if path.is_file():
        return _open_files(name, (path,), wanted, image_field)
    if path.is_dir():
        # However a folder is spelled, with a slash behind it or without, it is the same.
        return _open_folder(str(Path(name)), path, wanted, image_field)
    raise InputError(f"{name} does not exist; a data set of Hugging Face is written hf:{name}")


def _open_files(spec: str, paths: Sequence[Path], texts: tuple[str, ...], image_field: str | None) -> Source:
    suffixes = sorted({path.suffix.lower().removeprefix(".") for path in paths})
    if suffixes == ["tar"]:
        folder = paths[0].parent if len({path.parent for path in paths}) == 1 else None
        files = read_set_files([folder, folder.parent] if folder else [])
        return open_shards(spec, "tar shards", paths, files, texts=texts, image_field=image_field)
    if len(suffixes) == 1 and suffixes[0] in _TABLES:
        from littune.pairs.tables.part import open_tables

        return open_tables(spec, paths, texts=texts, image_field=image_field)
    endings = ", ".join(f".{suffix}" for suffix in suffixes)
    if len(suffixes) > 1:
        raise InputError(f"{spec} matches files of several kinds ({endings}); name one kind, as in *.{suffixes[-1]}")
    raise InputError(f"{spec} is no file of pairs; those end in .tar (not compressed), .{', .'.join(_TABLES)}")


def _open_folder(spec: str, folder: Path, texts: tuple[str, ...], image_field: str | None) -> Source:
    if is_store(folder):
        raise InputError(
            f"{spec} is a store of embeddings: its images are embedded already; hand it to train, eval or search"
        )
    if is_benchmark(folder):
        return open_benchmark(spec, folder, texts=texts, image_field=image_field)
    if image_field is not None:
        raise InputError(f"{spec} is a folder of images: --image-field {image_field} is for tables and tar shards")
    own = _look(folder)
    inner = [look for look in map(_look, child_folders(folder)) if look.has_images]
    if (own.has_pairs or not own.has_images) and any(look.has_pairs for look in (own, *inner)):
        return open_text_folders(spec, folder, texts)
    if inner and not own.has_images and not texts:
        return open_class_folders(spec, folder)
    raise InputError(_what_is_wrong(spec, folder, own, bool(inner), texts))


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What lies directly in a folder."""

    has_images: bool
    has_pairs: bool
    suffixes: frozenset[str]


def _look(folder: Path) -> _Look:
    names = file_names(folder)
    there = set(names)
    images = [name.rpartition(".")[0] for name in names if is_image(name)]
    return _Look(
        has_images=bool(images),
        has_pairs=any(f"{stem}{ending}" in there for stem in images for ending in (".txt", ".json")),
        suffixes=frozenset(name.rpartition(".")[2].lower() for name in names),
    )


def _what_is_wrong(spec: str, folder: Path, own: _Look, has_inner: bool, texts: tuple[str, ...]) -> str:
    """Why a folder cannot be opened, and what to write instead."""
    others = [suffix for suffix in ("tar", *_TABLES) if suffix in own.suffixes]
    if others:
        return f"{spec} holds files that are named one by one or by a pattern: write {folder / f'*.{others[0]}'}"
    if own.has_images and has_inner:
        return (
            f"{spec} holds images and folders of images: for a folder a class, move the images into folders; "
            "for pairs, put NAME.txt beside each NAME.jpg"
        )
    if has_inner:
        return f"{spec} is a folder a class, with labels but no texts beside the images: leave --texts out"
    if own.has_images:
        return f"{spec} holds images without texts: put NAME.txt beside each NAME.jpg, or write a table of pairs"
    if child_folders(folder):
        return f"{spec} holds no images, nor do the folders in it: name a folder further down, or shards by a pattern"
    return f"{spec} holds no images, shards or tables; name the folder, the pattern or the table that has them"
