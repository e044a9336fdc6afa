"""ImageIndex: the encoded images of a source's pairs by number, for training that visits them in random order.

One pass over the source notes where each image lies: in a file of its own, or in a tar, which is not compressed.
What lies nowhere in one piece, as in the cells of a table, is copied into one file, the spill. From then on
an image is read with one seek; in memory are a few numbers, the key and the texts of each.
"""

from array import array
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int32, Int64
from PIL import Image

from littune.base.errors import InputError, LittuneError, MismatchError
from littune.base.progress import track
from littune.pairs.base import BadSample, Pair, Sample, Slice, Source
from littune.pairs.decode import DecodeError, check_header, decode, read_encoded


@dataclass(frozen=True, kw_only=True)
class ImageIndex:
    """Where the images of a source's pairs lie. ``index_images`` makes one; it can be pickled and used in threads.

    Attributes:
        spec: the source's spec.
        fingerprint: changes when the contents of the source change.
        texts: each image's texts, by number.
        skipped: the rows of the source that cannot be used.
        keys: what names each image within its part.
        parts: the names of the source's parts.
        part: each image's position in ``parts``.
        paths: the files that images are read from.
        file: each image's position in ``paths``.
        offset: where it begins in that file.
        size: how many bytes it has.
    """

    spec: str
    fingerprint: str
    texts: Sequence[tuple[str, ...]]
    skipped: Sequence[BadSample]
    keys: Sequence[str]
    parts: Sequence[str]
    part: Int32[np.ndarray, " n"]
    paths: Sequence[str]
    file: Int32[np.ndarray, " n"]
    offset: Int64[np.ndarray, " n"]
    size: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.keys)

    def read(self, number: int) -> bytes:
        """The encoded image of this number.

        Raises:
            InputError: its file is gone or has changed.
        """
        path = Path(self.paths[self.file[number]])
        place = Slice(path=path, offset=int(self.offset[number]), size=int(self.size[number]))
        try:
            return read_encoded(place)
        except DecodeError as error:
            raise InputError(f"{self.name(number)}: {error}; restore it as it was") from error

    def picture(self, number: int) -> Image.Image:
        """The decoded picture of this number, upright, in RGB.

        Raises:
            InputError: its file is gone or has changed, or what lies there cannot be decoded.
        """
        encoded = self.read(number)
        try:
            return decode(encoded)
        except DecodeError as error:
            raise InputError(
                f"{self.name(number)}: {error}; remove it and begin anew; for a locked image tower, embed "
                f"{self.spec} into a store and train from that: embed skips such images"
            ) from error

    def name(self, number: int) -> str:
        """What the image is called in messages."""
        return f"{self.keys[number]} in {self.parts[self.part[number]]}"


def index_images(source: Source, *, spill: Path) -> ImageIndex:
    """Go through ``source`` once and note where its images lie.

    Rows that cannot be used are left out and counted, for the reasons that ``embed`` gives. Of pictures only the
    headers are looked at: one that turns out to be damaged further on is an error when it is decoded.

    Args:
        source: image-text pairs.
        spill: the file that takes in images which lie nowhere in one piece; made, over what is there, when the first
            comes. It must stay as long as the index is used.

    Raises:
        InputError: the source is labelled, or has not one usable pair.
        MismatchError: a part of it was changed while it was read.
        LittuneError: ``spill`` cannot be written.
    """
    if source.classnames is not None:
        raise InputError(f"{source.spec} holds labelled images ({source.kind}), and training takes pairs: name others")
    rows = _Rows()
    digest = sha256()
    with track("indexing", total=source.num_samples, unit="images") as advance, closing(_Spill(spill)) as copies:
        for part in source.parts():
            fingerprint = part.fingerprint()
            digest.update(f"{part.name} {fingerprint}\n".encode())
            for sample in part.samples():
                rows.add(sample, copies)
                advance()
            if part.fingerprint() != fingerprint:
                raise MismatchError(f"{part.name} was changed while it was read; leave it alone and begin anew")
    if not rows.keys:
        raise InputError(_why_none(source, rows.skipped))
    return rows.index(source.spec, digest.hexdigest())


class _Spill:
    """Images one after another in one file, which is made when the first comes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def add(self, encoded: bytes) -> Slice:
        with self._errors_explained():
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(self._path, "wb")  # noqa: SIM115 (closed by ``close``)
            place = Slice(path=self._path, offset=self._file.tell(), size=len(encoded))
            self._file.write(encoded)
        return place

    def close(self) -> None:
        if self._file is not None:
            with self._errors_explained():
                self._file.close()

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LittuneError(f"cannot copy images into {self._path}: {error.strerror}; make room there") from error


class _Rows:
    """An index in the making."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, ...]] = []
        self.skipped: list[BadSample] = []
        self.keys: list[str] = []
        self._parts: dict[str, int] = {}
        self._paths: dict[str, int] = {}
        self._part, self._file = array("i"), array("i")
        self._offset, self._size = array("q"), array("q")

    def add(self, sample: Sample | BadSample, copies: _Spill) -> None:
        if isinstance(sample, BadSample):
            self.skipped.append(sample)
            return
        assert isinstance(sample, Pair), "a source without class names has pairs"
        try:
            place = _place(sample, copies)
        except DecodeError as error:
            self.skipped.append(BadSample(key=sample.key, source=sample.source, reason=str(error)))
            return
        self.texts.append(sample.texts)
        self.keys.append(sample.key)
        self._part.append(self._parts.setdefault(sample.source, len(self._parts)))
        self._file.append(self._paths.setdefault(str(place.path), len(self._paths)))
        self._offset.append(place.offset)
        self._size.append(place.size)

    def index(self, spec: str, fingerprint: str) -> ImageIndex:
        return ImageIndex(
            spec=spec,
            fingerprint=fingerprint,
            texts=self.texts,
            skipped=self.skipped,
            keys=self.keys,
            parts=tuple(self._parts),
            part=np.array(self._part, np.int32),
            paths=tuple(self._paths),
            file=np.array(self._file, np.int32),
            offset=np.array(self._offset, np.int64),
            size=np.array(self._size, np.int64),
        )


def _place(pair: Pair, copies: _Spill) -> Slice:
    """Where the pair's image can be read from now on.

    Raises:
        DecodeError: it cannot be read or, by its header, decoded.
    """
    encoded = read_encoded(pair.image)
    check_header(encoded)
    if isinstance(pair.image, Path):
        return Slice(path=pair.image, offset=0, size=len(encoded))
    return pair.place or copies.add(encoded)


def _why_none(source: Source, skipped: Sequence[BadSample]) -> str:
    if not skipped:
        return f"{source.spec} ({source.kind}) holds no images; check the spec"
    first = skipped[0]
    return (
        f"{source.spec} ({source.kind}) holds no usable image: all {len(skipped):,} were skipped, "
        f"the first {first.key} in {first.source}: {first.reason}"
    )
