"""Pictures that lie in folders: with their texts beside them, or in one folder a class.

The names of one folder are held in memory at a time (they must be sorted to come in the same order every
time); pictures stay on disk until they are decoded. Hidden files are passed over.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from littune.base.errors import InputError
from littune.pairs.base import BadSample, LabelledImage, Pair, Sample
from littune.pairs.decode import IMAGE_SUFFIXES
from littune.pairs.rows import PartList, RowError, printable, sample_or_bad
from littune.pairs.texts import MAX_TEXT_BYTES, caption_texts, decode_text, parse_object

_TEXTS = (".txt", ".json")


@dataclass(frozen=True, kw_only=True)
class TextFolder:
    """One folder of pictures with ``NAME.txt`` (one caption) and / or ``NAME.json`` beside ``NAME.jpg``."""

    folder: Path
    name: str
    texts: tuple[str, ...]

    def fingerprint(self) -> str:
        return fingerprint_of_files(self.folder, file_names(self.folder))

    def num_samples(self) -> int:
        return sum(map(is_image, file_names(self.folder)))

    def samples(self) -> Iterator[Sample | BadSample]:
        names = file_names(self.folder)
        images: dict[str, list[str]] = {}
        for name in filter(is_image, names):
            images.setdefault(_stem(name), []).append(name)
        stems = sorted(images.keys() | {_stem(name) for name in names if name.endswith(_TEXTS)})
        there = frozenset(names)
        for stem in stems:
            make = partial(self._pair, stem, images.get(stem, []), there)
            yield sample_or_bad(printable(stem), self.name, make)

    def _pair(self, stem: str, images: list[str], there: frozenset[str]) -> Pair:
        if not images:
            raise RowError("a text without its image: no image of this name lies beside it")
        if len(images) > 1:
            raise RowError(f"several images have this name ({', '.join(map(printable, images))}): rename all but one")
        fields: dict[str, object] = {}
        if f"{stem}.json" in there:
            fields |= parse_object(_read_small(self.folder / f"{stem}.json"), "its .json")
        if f"{stem}.txt" in there:
            fields["caption"] = decode_text(_read_small(self.folder / f"{stem}.txt"), "its .txt").strip()
        if not fields:
            raise RowError("an image without its text: no .txt or .json of this name lies beside it")
        return Pair(
            key=printable(stem),
            source=self.name,
            image=self.folder / images[0],
            fields=fields,
            texts=caption_texts(fields, self.texts),
        )


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """The pictures of one class, in a folder and the folders in it."""

    folder: Path
    name: str
    label: int

    def fingerprint(self) -> str:
        return fingerprint_of_files(self.folder, list(self._names()))

    def num_samples(self) -> int:
        return sum(1 for _ in self._names())

    def samples(self) -> Iterator[Sample | BadSample]:
        for name in self._names():
            yield LabelledImage(key=printable(name), source=self.name, image=self.folder / name, label=self.label)

    def _names(self) -> Iterator[str]:
        """Paths of images, relative to the folder."""
        for folder in folders_in(self.folder):
            prefix = "" if folder == self.folder else f"{folder.relative_to(self.folder).as_posix()}/"
            yield from (f"{prefix}{name}" for name in filter(is_image, file_names(folder)))


def open_text_folders(spec: str, root: Path, texts: tuple[str, ...]) -> PartList:
    """Every folder in ``root`` that holds images, each a part."""
    folders = [folder for folder in folders_in(root) if _holds_images(folder)]
    parts = tuple(TextFolder(folder=folder, name=_name_in(root, folder), texts=texts) for folder in folders)
    return PartList(
        spec=spec,
        kind="images with texts beside them",
        all_parts=parts,
        texts=texts,
        count=lambda: sum(part.num_samples() for part in parts),
    )


def open_class_folders(spec: str, root: Path) -> PartList:
    """Each folder in ``root`` that holds images, at any depth, is a class that is named as the folder is."""
    folders = [folder for folder in child_folders(root) if any(map(_holds_images, folders_in(folder)))]
    parts = tuple(
        ClassFolder(folder=folder, name=printable(folder.name), label=label) for label, folder in enumerate(folders)
    )
    return PartList(
        spec=spec,
        kind="a folder a class, labelled",
        all_parts=parts,
        classnames=tuple(part.name for part in parts),
        count=lambda: sum(part.num_samples() for part in parts),
    )


def is_image(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return name.rpartition(".")[2].lower() in IMAGE_SUFFIXES


def file_names(folder: Path) -> list[str]:
    """The names of the files in ``folder``, sorted, without hidden ones.

    Raises:
        InputError: the folder cannot be read.
    """
    return sorted(entry.name for entry in _entries(folder) if entry.is_file())


def child_folders(folder: Path) -> list[Path]:
    """The folders in ``folder``, sorted, without hidden ones."""
    return sorted(folder / entry.name for entry in _entries(folder) if entry.is_dir())


def folders_in(root: Path) -> Iterator[Path]:
    """``root`` and every folder in it, at any depth, sorted; links to folders are not entered."""
    yield root
    for folder in child_folders(root):
        if not folder.is_symlink():
            yield from folders_in(folder)


def fingerprint_of_files(folder: Path, names: list[str]) -> str:
    """A mark of the files' names, sizes and times of change: their contents would take too long to read."""
    digest = sha256()
    for name in names:
        status = (folder / name).stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns} ".encode() + os.fsencode(name) + b"\0")
    return digest.hexdigest()


def _holds_images(folder: Path) -> bool:
    return any(map(is_image, file_names(folder)))


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _name_in(root: Path, folder: Path) -> str:
    """The folder's path from the root's own name on, so that the root has a name too."""
    return printable((Path(root.resolve().name) / folder.relative_to(root)).as_posix())


def _read_small(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise RowError(f"its {path.suffix} is over the limit of {MAX_TEXT_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise RowError(f"its {path.suffix} cannot be read: {error.strerror}") from error
