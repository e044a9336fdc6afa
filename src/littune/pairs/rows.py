"""What every kind of source is made of: a list of parts, keys that must differ, rows that may be unusable."""

import os
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from littune.pairs.base import BadSample, Part, Sample, Source


@dataclass(frozen=True, kw_only=True)
class PartList:
    """A source whose parts are all known when it is opened. See ``Source`` for its attributes.

    Attributes:
        all_parts: the parts in their fixed order.
        count: how many rows there are, or None where counting would mean reading everything.
    """

    spec: str
    kind: str
    all_parts: tuple[Part, ...]
    texts: tuple[str, ...] = ()
    image_field: str | None = None
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    count: Callable[[], int | None]

    @cached_property
    def num_samples(self) -> int | None:
        return self.count()

    def parts(self) -> Sequence[Part]:
        return self.all_parts


def iter_samples(source: Source) -> Iterator[Sample | BadSample]:
    """Every row of every part of ``source``, in order."""
    for part in source.parts():
        yield from part.samples()


def relative_names(paths: Sequence[Path]) -> list[str]:
    """The paths relative to the deepest folder that they all lie in: the same wherever that folder is."""
    root = os.path.commonpath([path.parent for path in paths])
    return [printable(path.relative_to(root).as_posix()) for path in paths]


class RowError(Exception):
    """Why a row cannot be used, in words that complete "KEY in SOURCE: …"; becomes a ``BadSample``."""


def sample_or_bad(key: str, source: str, make: Callable[[], Sample]) -> Sample | BadSample:
    """What ``make`` returns, or, where it raises ``RowError``, the row as a ``BadSample``."""
    try:
        return make()
    except RowError as why:
        return BadSample(key=key, source=source, reason=str(why))


def printable(name: str) -> str:
    """``name`` with bytes that were no UTF-8 (file systems and tars allow them) written as ``\\xNN``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class KeySet:
    """The keys seen so far, as 64-bit hashes in an open-addressing table.

    It takes 12 to 24 bytes a key where a set of strings takes about 150, and it lives as long as the
    reading of one part: 0.2 MB for a shard of 10,000. Two different keys share a hash once in 10^7 parts
    of a million rows.
    """

    def __init__(self) -> None:
        self._slots = _empty(1024)
        self._num = 0

    def add(self, key: str) -> bool:
        """Add ``key``; False if it was there already."""
        # 0 marks an empty slot.
        mark = int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little") or 1
        place = self._place(mark)
        if self._slots[place] == mark:
            return False
        self._slots[place] = mark
        self._num += 1
        if 3 * self._num > 2 * len(self._slots):
            self._grow()
        return True

    def _place(self, mark: int) -> int:
        mask = len(self._slots) - 1
        place = mark & mask
        while self._slots[place] not in (0, mark):
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        marks = self._slots
        self._slots = _empty(2 * len(marks))
        for mark in marks:
            if mark:
                self._slots[self._place(mark)] = mark


def _empty(length: int) -> "array[int]":
    return array("Q", [0]) * length
