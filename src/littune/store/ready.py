"""From the parts of a source to rows with their pixels, in order, each with the place in the source behind it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import UInt8
from torch import Tensor

from littune.base.errors import MismatchError
from littune.pairs.base import BadSample, LabelledImage, Pair, Part, Sample
from littune.pairs.decode import DecodeError, decode, read_encoded
from littune.store.manifest import Cursor, Skipped
from littune.store.shards import Row
from littune.store.views import Views
from littune.store.writer import ROWS_PER_COMMIT
from littune.towers.image.tower import Preprocess


@dataclass(frozen=True, kw_only=True, slots=True)
class Read:
    """A sample of a part, or (None) the part's end, and the place behind it."""

    part: str
    cursor: Cursor
    sample: Sample | BadSample | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """What came of it: a row with its pixels, or a reason to skip it, or (the part's end) neither."""

    part: str
    cursor: Cursor
    row: Row | None = None
    pixels: tuple[UInt8[Tensor, "3 h w"], ...] = ()
    """The plain picture, then its views."""
    skipped: Skipped | None = None


def read_on(parts: Sequence[Part], cursors: Mapping[str, Cursor]) -> Iterator[Read]:
    """The samples behind the cursors, each part followed by its end.

    Raises:
        MismatchError: a part was changed while it was read.
    """
    for part in parts:
        cursor = cursors.get(part.name)
        if cursor is None:
            cursor = Cursor(fingerprint=part.fingerprint(), taken=0, complete=False)
        if not cursor.complete:
            yield from _read_part(part, cursor)


def _read_part(part: Part, behind: Cursor) -> Iterator[Read]:
    def at(taken: int, *, complete: bool) -> Cursor:
        return Cursor(fingerprint=behind.fingerprint, taken=taken, complete=complete)

    taken = 0
    for taken, sample in enumerate(part.samples(), 1):
        if taken > behind.taken:
            yield Read(part=part.name, cursor=at(taken, complete=False), sample=sample)
    if part.fingerprint() != behind.fingerprint:
        raise MismatchError(f"{part.name} was changed while it was read; leave it alone and embed into another folder")
    assert taken >= behind.taken, "a part with the same fingerprint has the same samples"
    yield Read(part=part.name, cursor=at(taken, complete=True), sample=None)


def prepare(read: Read, *, preprocess: Preprocess, views: Views | None) -> Ready:
    """Decode a sample and cut its pixels to the tower's size, plainly and for each view."""
    sample = read.sample
    if sample is None:
        return Ready(part=read.part, cursor=read.cursor)
    if isinstance(sample, BadSample):
        return _skip(read, sample, sample.reason)
    try:
        encoded = read_encoded(sample.image)
        picture = decode(encoded)
        pixels = (preprocess(picture), *(views.of(picture, sample, preprocess) if views else ()))
    except DecodeError as error:
        return _skip(read, sample, str(error))
    except Exception as error:
        error.add_note(f"while preparing {sample.key} in {sample.source}")
        raise
    return Ready(part=read.part, cursor=read.cursor, row=_row(sample, encoded), pixels=pixels)


def in_groups(ready: Iterator[Ready], num_images: int) -> Iterator[list[Ready]]:
    """Cut the stream where ``num_images`` images are together, or where as many rows as fill a shard were skipped."""
    group: list[Ready] = []
    images = 0
    for item in ready:
        group.append(item)
        images += item.row is not None
        if images == num_images or len(group) - images >= ROWS_PER_COMMIT:
            yield group
            group, images = [], 0
    if group:
        yield group


def _skip(read: Read, sample: Sample | BadSample, reason: str) -> Ready:
    skipped = Skipped(key=sample.key, source=sample.source, reason=reason)
    return Ready(part=read.part, cursor=read.cursor, skipped=skipped)


def _row(sample: Sample, encoded: bytes) -> Row:
    return Row(
        key=sample.key,
        source=sample.source,
        texts=sample.texts if isinstance(sample, Pair) else (),
        label=sample.label if isinstance(sample, LabelledImage) else None,
        image_sha256=hashlib.sha256(encoded).hexdigest(),
        fields=sample.fields,
    )
