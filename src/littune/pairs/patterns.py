"""Patterns that name many files.

Braces are as in shells (``{00000..00009}``, ``{a,b}``), globs too (``*``, ``?``, ``[ab]``, ``**`` for any depth).
"""

import glob
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from littune.base.errors import InputError

_MAX_FILES = 1_000_000

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(spec: str) -> bool:
    """Whether ``spec`` is a pattern and not the name of a file that happens to hold such characters."""
    return bool(_BRACES.search(spec) or glob.has_magic(spec)) and not Path(spec).exists()


def matching_files(pattern: str) -> tuple[Path, ...]:
    """The files that ``pattern`` names: braces in their order, what each glob matches sorted by name.

    Raises:
        InputError: nothing matches, or a file that the braces name is missing.
    """
    found: dict[Path, None] = {}
    for name in _expand(pattern):
        # Path.glob takes no absolute pattern.
        names = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else [name]  # noqa: PTH207
        files = [path for path in map(Path, names) if path.is_file()]
        if not files:
            where = "" if name == pattern else f" (of {pattern})"
            raise InputError(f"{name}{where} matches no file; check the folder and the spelling of the pattern")
        found.update(dict.fromkeys(files))
    return tuple(found)


def _expand(pattern: str) -> Iterator[str]:
    """Every name that the braces of ``pattern`` stand for; the last braces change fastest."""
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece, pattern) if index % 2 else (piece,) for index, piece in enumerate(pieces)]
    total = 1
    for choice in choices:
        total *= len(choice)
    if total > _MAX_FILES:
        raise InputError(f"{pattern} stands for {total:,} files, over the limit of {_MAX_FILES:,}")
    return ("".join(names) for names in product(*choices))


def _choices(braces: str, pattern: str) -> tuple[str, ...]:
    numbers = _RANGE.fullmatch(braces)
    if numbers is None:
        return tuple(braces.split(","))
    first, last = numbers.groups()
    if int(last) < int(first) or int(last) - int(first) >= _MAX_FILES:
        raise InputError(f"{pattern}: {{{braces}}} is no range that can be counted up; write {{00000..00009}}")
    width = len(first) if first.startswith("0") else 0
    return tuple(str(number).zfill(width) for number in range(int(first), int(last) + 1))
