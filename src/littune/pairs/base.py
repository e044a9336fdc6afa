"""Pair and LabelledImage, and the protocol that a source of them fulfils.

A source is a sequence of *parts* (a tar shard, a table, a folder). Each part has a name that is the
same on every run, a fingerprint of its contents, and yields its samples in one fixed order, so that a
place in a source is a part's name and a count, and work on it can go on where it stopped.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """So many bytes of a file, from an offset on."""

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One image as it lies in its source, still encoded.

    Attributes:
        key: what names the row within its part.
        source: the name of the part that it came from.
        image: the encoded picture, or the path of the file that holds it.
        place: where an encoded picture lies on disk, to be read again out of turn; None where it does not lie there in
            one piece. It makes no difference to whether two samples are equal.
        fields: everything else that the source says of the row; values are JSON values.
    """

    key: str
    source: str
    image: bytes | Path
    place: Slice | None = field(default=None, compare=False)
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair(Sample):
    """An image and its texts; the first is the caption. At least one text, none of them blank."""

    texts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledImage(Sample):
    """An image and the index of its class in the source's class names."""

    label: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BadSample:
    """A row that cannot be used, and why, in words that complete "KEY in SOURCE: …"."""

    key: str
    source: str
    reason: str


@runtime_checkable
class Part(Protocol):
    """One file or folder of a source."""

    @property
    def name(self) -> str:
        """Unique in the source and the same on every run; for files, their name relative to the rest."""
        ...

    def fingerprint(self) -> str:
        """Changes when the contents change."""
        ...

    def samples(self) -> Iterator[Sample | BadSample]:
        """Every row once, in the same order on every call; unusable rows as ``BadSample``."""
        ...


@runtime_checkable
class Source(Protocol):
    """Image-text pairs or labelled images, whatever they lie in."""

    @property
    def spec(self) -> str:
        """The spec that it was opened with."""
        ...

    @property
    def kind(self) -> str:
        """What the spec was detected as, in words for the user, such as "tar shards"."""
        ...

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields that were chosen to supply the texts; empty for the source's own choice."""
        ...

    @property
    def image_field(self) -> str | None:
        """The column or suffix that was chosen to hold the image; None for the source's own choice."""
        ...

    @property
    def classnames(self) -> tuple[str, ...] | None:
        """The class names of a labelled set, in the order of its labels; None for pairs."""
        ...

    @property
    def templates(self) -> tuple[str, ...] | None:
        """Prompt templates that came with a labelled set, each with one ``{}``; None where there are none."""
        ...

    @property
    def num_samples(self) -> int | None:
        """How many rows there are, where that is known without reading them all."""
        ...

    def parts(self) -> Sequence[Part]:
        """The parts in their fixed order."""
        ...
