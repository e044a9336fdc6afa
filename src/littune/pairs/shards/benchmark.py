"""The layout of CLIP_benchmark: ``{split}/nshards.txt``, ``{split}/0.tar`` …, and what the set is in small files.

The small files lie in the root folder: ``classnames.txt`` and ``zeroshot_classification_templates.txt`` for
labelled images, ``dataset_type.txt`` with "retrieval" for pairs. Shards that a pattern names are described
by them too, where they lie beside or above the shards.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from littune.base.errors import InputError
from littune.pairs.rows import PartList
from littune.pairs.shards.part import SetFiles, open_shards

_NUM_SHARDS = "nshards.txt"
_CLASSNAMES = "classnames.txt"
_TEMPLATES = "zeroshot_classification_templates.txt"
_TYPE = "dataset_type.txt"


def is_benchmark(folder: Path) -> bool:
    """Whether ``folder`` is the root or a split of a set in this layout, complete or not."""
    return bool(_splits(folder)) or any((folder / name).exists() for name in (_NUM_SHARDS, _CLASSNAMES, _TYPE))


def open_benchmark(spec: str, folder: Path, *, texts: tuple[str, ...], image_field: str | None) -> PartList:
    """The split at ``folder``, or of the root ``folder`` the split ``test``, or else its only one.

    Raises:
        InputError: there is no ``nshards.txt``, several splits without ``test``, a shard is missing, or there
            are class names without labels.
    """
    split = folder if (folder / _NUM_SHARDS).exists() else _split_of(folder)
    paths = _shards(split)
    files = read_set_files([split, split.parent])
    source = open_shards(spec, "CLIP_benchmark layout", paths, files, texts=texts, image_field=image_field)
    if files.classnames and not source.classnames and not files.is_retrieval and not texts:
        raise InputError(
            f"{spec} has class names but its shards hold no labels (.cls); "
            f"if they hold pairs, name them by a pattern: {split}/*.tar"
        )
    return source


def read_set_files(folders: Sequence[Path]) -> SetFiles:
    """The small files that describe a set, each from the first of ``folders`` that has it.

    Raises:
        InputError: one of them is not UTF-8, holds a blank line, or a template without a place for the class.
    """
    kind = _lines(folders, _TYPE) or ()
    templates = _lines(folders, _TEMPLATES)
    return SetFiles(
        classnames=_lines(folders, _CLASSNAMES),
        templates=None if templates is None else tuple(_template(line) for line in templates),
        is_retrieval=[line.lower() for line in kind] == ["retrieval"],
    )


def _splits(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{_NUM_SHARDS}"))


def _split_of(root: Path) -> Path:
    splits = _splits(root)
    if root / "test" in splits:
        return root / "test"
    if len(splits) == 1:
        return splits[0]
    if splits:
        raise InputError(f"{root} has several splits; write one of {', '.join(map(str, splits))}")
    raise InputError(
        f"{root} looks like a CLIP_benchmark set but has no test/{_NUM_SHARDS}; "
        "write the number of shards there, or name the shards by a pattern"
    )


def _shards(split: Path) -> list[Path]:
    num_shards = _num_shards(split / _NUM_SHARDS)
    paths = []
    for index in range(num_shards):
        path = split / f"{index}.tar"
        if not path.is_file():
            raise InputError(f"{path} is missing: {split / _NUM_SHARDS} promises {num_shards} shards; fetch it again")
        paths.append(path)
    return paths


def _num_shards(path: Path) -> int:
    text = path.read_text(encoding="utf-8", errors="replace").strip()
    if re.fullmatch(r"0*[1-9]\d{0,8}", text, re.ASCII) is None:
        raise InputError(f"{path} holds {text[:20]!r}; it must hold the number of shards")
    return int(text)


def _lines(folders: Sequence[Path], name: str) -> tuple[str, ...] | None:
    """The lines of the first file of that name, without blank ones at its end."""
    path = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        lines = tuple(line.strip() for line in path.read_text(encoding="utf-8-sig").rstrip().splitlines())
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    if not all(lines):
        raise InputError(f"{path}: line {lines.index('') + 1} is blank; each line must be one entry")
    return lines


def _template(line: str) -> str:
    """CLIP_benchmark's ``{c}`` as ``{}``."""
    template = line.replace("{c}", "{}")
    if template.count("{}") != 1:
        raise InputError(f"{_TEMPLATES}: {line!r} must hold one {{c}}, where the class name goes")
    return template
