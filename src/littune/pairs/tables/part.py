"""A table as pairs: each row's image and texts; rows in a row that share a path are one image of many texts.

Paths are relative to the folder that the table lies in, and may not lead out of it: a table that was
downloaded cannot have other files of the machine read. (Links that lie in the folder are followed: whoever
has put them there meant it.)
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from littune.base.errors import InputError
from littune.base.files import fingerprint_of_file
from littune.pairs.base import BadSample, LabelledImage, Pair, Sample
from littune.pairs.rows import KeySet, PartList, RowError, relative_names, sample_or_bad
from littune.pairs.tables.columns import Columns, choose_columns
from littune.pairs.tables.formats import FORMATS, Row
from littune.pairs.texts import as_json, caption_texts

_MAX_COUNTED_BYTES = 64 << 20
"""Tables of paths are counted by reading them, up to this size together: it takes seconds."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


@dataclass(kw_only=True)
class _Entry:
    """One image of a table, and the rows that speak of it."""

    key: str
    image: bytes | Path
    rows: list[dict[str, object]]

    def continues(self, other: "_Entry") -> bool:
        return isinstance(self.image, Path) and (self.image, self.key) == (other.image, other.key)


@dataclass(frozen=True, kw_only=True)
class TablePart:
    """One table of a source.

    Attributes:
        name: its name in the source.
        folder: what paths in it are relative to, and must stay in.
        columns: which column is what.
        rows: reads the rows from the start, each with its place ("line 7").
        mark: computes the fingerprint.
        num_images: how many images there are, where that is known without reading the rows.
    """

    name: str
    folder: Path
    columns: Columns
    rows: Callable[[], Iterator[tuple[str, Row]]]
    mark: Callable[[], str]
    num_images: int | None = None

    def fingerprint(self) -> str:
        return self.mark()

    def samples(self) -> Iterator[Sample | BadSample]:
        seen = KeySet()
        for entry in self._entries():
            if isinstance(entry, BadSample):
                yield entry
            elif not (self._is_numbered(entry) or seen.add(entry.key)):
                reason = "its key occurs twice in this table; rows of one image must follow each other"
                yield BadSample(key=entry.key, source=self.name, reason=reason)
            else:
                yield sample_or_bad(entry.key, self.name, partial(self._sample, entry))

    def _entries(self) -> Iterator[_Entry | BadSample]:
        """The rows, those that follow each other and share an image as one."""
        held: _Entry | None = None
        for place, row in self.rows():
            try:
                entry = self._entry(place, row)
            except RowError as why:
                yield BadSample(key=place, source=self.name, reason=str(why))
                continue
            if held is not None and held.continues(entry):
                held.rows += entry.rows
                continue
            if held is not None:
                yield held
            held = entry
            if isinstance(entry.image, bytes):
                yield entry
                held = None
        if held is not None:
            yield held

    def _entry(self, place: str, row: Row) -> _Entry:
        if isinstance(row, RowError):
            raise row
        image = image_in(row.get(self.columns.image), self.folder)
        fields = {name: as_json(value) for name, value in row.items() if name != self.columns.image}
        if isinstance(image, Path):
            fields[self.columns.image] = image.relative_to(self.folder).as_posix()
        return _Entry(key=self._key(place, row, image), image=image, rows=[fields])

    def _key(self, place: str, row: dict[str, object], image: bytes | Path) -> str:
        if self.columns.key is None:
            return image.relative_to(self.folder).as_posix() if isinstance(image, Path) else place
        key = row.get(self.columns.key)
        if not isinstance(key, str | int) or not str(key).strip():
            raise RowError(f"its {self.columns.key} is empty")
        return str(key)

    def _is_numbered(self, entry: _Entry) -> bool:
        """Whether the key is the row's place, which no other row has."""
        return self.columns.key is None and isinstance(entry.image, bytes)

    def _sample(self, entry: _Entry) -> Sample:
        fields = merge_rows(entry.rows)
        if self.columns.label is not None:
            label = _label(fields.get(self.columns.label), len(self.columns.classnames))
            return LabelledImage(key=entry.key, source=self.name, image=entry.image, fields=fields, label=label)
        texts = caption_texts(fields, self.columns.texts)
        return Pair(key=entry.key, source=self.name, image=entry.image, fields=fields, texts=texts)


def open_tables(spec: str, paths: Sequence[Path], *, texts: tuple[str, ...], image_field: str | None) -> PartList:
    """The tables at ``paths``, all of one format, as one source.

    Raises:
        InputError: a table cannot be read, or its columns are not known or not told apart.
    """
    suffix = paths[0].suffix.lower().removeprefix(".")
    parts = tuple(
        _open_table(path, name, suffix, texts, image_field)
        for path, name in zip(paths, relative_names(paths), strict=True)
    )
    return PartList(
        spec=spec,
        kind=f"{suffix.upper()} table",
        all_parts=parts,
        texts=texts,
        image_field=image_field,
        count=lambda: _count(parts, sum(path.stat().st_size for path in paths)),
    )


def image_in(cell: object, folder: Path) -> bytes | Path:
    """The picture in a cell: bytes, a path in ``folder``, or Hugging Face's ``{"bytes": …, "path": …}``.

    Raises:
        RowError: there is none, or the path leads out of the folder.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes) and cell:
        return cell
    if not isinstance(cell, str) or not cell.strip():
        raise RowError("its image is empty" if cell in (None, "", b"") else f"its image is {cell!r}, no path")
    return path_within(folder, cell.strip())


def path_within(folder: Path, name: str) -> Path:
    """``name`` in ``folder``.

    Raises:
        RowError: it is a URL, absolute, or climbs out with ``..``.
    """
    path = PurePosixPath(name)
    if _URL.match(name):
        raise RowError(f"its image {name} is a URL, and nothing is downloaded here: img2dataset does that")
    if path.is_absolute() or ".." in path.parts:
        raise RowError(f"its image {name} leads out of the table's folder: paths must be relative to it and stay in it")
    return folder / path


def merge_rows(rows: Sequence[dict[str, object]]) -> dict[str, object]:
    """The fields of one row; of several rows, a list of the values where they differ."""
    names = dict.fromkeys(name for row in rows for name in row)
    values = {name: [row.get(name) for row in rows] for name in names}
    return {name: found if any(value != found[0] for value in found) else found[0] for name, found in values.items()}


def _open_table(path: Path, name: str, suffix: str, texts: tuple[str, ...], image_field: str | None) -> TablePart:
    reader = FORMATS[suffix]
    try:
        header = reader.header(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    columns = choose_columns(str(path), header.columns, binary=header.binary, texts=texts, image_field=image_field)
    return TablePart(
        name=name,
        folder=path.parent,
        columns=columns,
        rows=partial(reader.rows, path, columns.image),
        mark=partial(fingerprint_of_file, path),
        # Rows that share a path become one image; rows of bytes are one image each.
        num_images=header.num_rows if columns.image in header.binary else None,
    )


def _label(value: object, num_classes: int) -> int:
    if not isinstance(value, int) or not 0 <= value < num_classes:
        raise RowError(f"its label is {value!r}, which is no index of its {num_classes} classes")
    return value


def _count(parts: Sequence[TablePart], num_bytes: int) -> int | None:
    known = [part.num_images for part in parts]
    if None not in known:
        return sum(filter(None, known))
    if num_bytes > _MAX_COUNTED_BYTES:
        return None
    return sum(1 for part in parts for _ in part.samples())
