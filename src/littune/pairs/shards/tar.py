"""A tar as a stream of groups: consecutive members that share a key, as WebDataset reads them.

The key of ``a/b.seg.png`` is ``a/b``, its suffix ``seg.png``: a name is cut at its first dot. Nothing is
extracted to disk, links are not followed, one group is in memory at a time, and what is wrong with a
group or with the tar itself is said in its place in the stream.
"""

import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from littune.base.errors import InputError
from littune.pairs.decode import IMAGE_SUFFIXES, MAX_IMAGE_BYTES
from littune.pairs.rows import printable
from littune.pairs.texts import MAX_TEXT_BYTES

TEXT_SUFFIXES = ("txt", "json", "cls")


@dataclass(kw_only=True)
class Group:
    """Members in a row that share a key.

    Attributes:
        key: what their names share.
        suffixes: the suffix of each of them, in order.
        images: suffix → encoded picture; where several were not told apart by ``wanted``, only the first.
        image_offset: where in the tar that picture begins; None where it does not lie there in one piece.
        data: suffix → contents of the text, JSON and label members.
        problem: why the group cannot be used, or "".
    """

    key: str
    suffixes: list[str] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)
    image_offset: int | None = None
    data: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""


def tar_groups(path: Path, wanted: Collection[str] = (*IMAGE_SUFFIXES, *TEXT_SUFFIXES)) -> Iterator[Group]:
    """The groups of the tar at ``path``, in order, with the contents of members whose suffix is in ``wanted``.

    A tar that ends too early, or goes on with something that is no tar, gives the groups before that
    place and then one whose ``problem`` says so.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(path, "rb") as file:
            yield from _groups(file, wanted)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error


def count_groups(path: Path) -> int:
    """How many groups ``tar_groups`` gives; reads the headers of the members alone."""
    return sum(1 for _ in tar_groups(path, wanted=()))


def _groups(file: BinaryIO, wanted: Collection[str]) -> Iterator[Group]:
    group: Group | None = None
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in _members(tar):
                key, suffix = _split(member.name)
                if group is None or key != group.key or suffix in group.suffixes:
                    if group is not None:
                        yield group
                    group = Group(key=key)
                _take(group, suffix, member, tar, wanted)
            if group is not None:
                yield group
            if problem := _problem_at_end(tar, file):
                yield Group(key=f"byte {tar.offset}", problem=problem)
    except tarfile.TarError as error:
        yield Group(
            key="byte 0" if group is None else group.key,
            problem=f"the tar is truncated or damaged here ({error}); what follows is lost: copy it anew",
        )


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members, without folders and hidden files; the archive's own list of them is kept empty."""
    while (member := tar.next()) is not None:
        # tarfile remembers every member that it has seen: memory would grow with the tar.
        tar.members = []  # type: ignore[attr-defined]
        if not member.isdir() and not member.name.rpartition("/")[2].startswith("."):
            yield member


def _split(name: str) -> tuple[str, str]:
    """``a/b.seg.PNG`` → ``a/b``, ``seg.png``."""
    folder, slash, base = printable(name).removeprefix("./").rpartition("/")
    stem, _, suffix = base.partition(".")
    return f"{folder}{slash}{stem}", suffix.lower()


def _take(group: Group, suffix: str, member: tarfile.TarInfo, tar: tarfile.TarFile, wanted: Collection[str]) -> None:
    """Add one member to ``group``, with its contents if they are wanted and of a sane size."""
    group.suffixes.append(suffix)
    is_text = suffix in TEXT_SUFFIXES
    limit = MAX_TEXT_BYTES if is_text else MAX_IMAGE_BYTES
    if not member.isreg():
        group.problem = f"its member {printable(member.name)} is a link or a device, which is not followed"
    elif suffix not in wanted:
        return
    elif member.size > limit:
        group.problem = f"its .{suffix} is {member.size >> 20} MB, over the limit of {limit >> 20} MB"
    elif group.images and not is_text:
        group.problem = f"it has several images (.{', .'.join(group.images)}, .{suffix}): say which with --image-field"
    elif is_text:
        group.data[suffix] = _contents(tar, member)
    else:
        group.images[suffix] = _contents(tar, member)
        group.image_offset = None if member.issparse() else member.offset_data


def _contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    data = file.read()
    if len(data) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return data


def _problem_at_end(tar: tarfile.TarFile, file: BinaryIO) -> str:
    """tarfile takes a missing or senseless header for the end; a tar that is whole ends with a block of zeros."""
    file.seek(tar.offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block == bytes(tarfile.BLOCKSIZE):
        return ""
    if len(block) < tarfile.BLOCKSIZE:
        return "the tar is truncated here: it has no end mark, so rows may be missing; copy it anew"
    return "the tar is damaged here: no valid header; what follows is lost: copy it anew"
