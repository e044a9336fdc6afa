"""Tar shards: pairs as img2dataset writes them, labelled images as CLIP_benchmark reads them.

A pair is ``KEY.jpg`` with ``KEY.txt`` (one caption) and / or ``KEY.json`` (an object with ``captions``,
``caption`` and whatever else); a labelled image is ``KEY.jpg`` with ``KEY.cls`` (the index of its class).
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from littune.base.errors import InputError
from littune.base.files import fingerprint_of_file, read_json
from littune.pairs.base import BadSample, LabelledImage, Pair, Sample, Slice
from littune.pairs.decode import IMAGE_SUFFIXES
from littune.pairs.rows import KeySet, PartList, RowError, relative_names, sample_or_bad
from littune.pairs.shards.tar import TEXT_SUFFIXES, Group, count_groups, tar_groups
from littune.pairs.texts import caption_texts, decode_text, parse_object

_MAX_COUNTED_BYTES = 1 << 30
"""Shards are counted, by the headers of their members, up to this size together: it takes seconds."""

_NUM_PEEKED = 16
"""How many groups are looked at to see whether shards are labelled."""


@dataclass(frozen=True, kw_only=True)
class SetFiles:
    """The small files of the CLIP_benchmark layout that lie beside or above the shards.

    Attributes:
        classnames: ``classnames.txt``, a class a line.
        templates: ``zeroshot_classification_templates.txt``, with ``{}`` for the class.
        is_retrieval: ``dataset_type.txt`` says "retrieval": each line of a ``.txt`` is a caption.
    """

    classnames: tuple[str, ...] | None
    templates: tuple[str, ...] | None
    is_retrieval: bool


@dataclass(frozen=True, kw_only=True)
class TarPart:
    """One tar of a source.

    Attributes:
        path: the tar.
        name: its path relative to the folder that all shards of the source lie in.
        texts: the fields that supply texts; empty for the default ones.
        image_field: the suffix of the images, or None for any image suffix.
        num_classes: how many classes there are, or None for pairs.
        is_retrieval: whether each line of a ``.txt`` is a caption.
    """

    path: Path
    name: str
    texts: tuple[str, ...]
    image_field: str | None
    num_classes: int | None
    is_retrieval: bool

    def fingerprint(self) -> str:
        return fingerprint_of_file(self.path)

    def samples(self) -> Iterator[Sample | BadSample]:
        seen = KeySet()
        for group in tar_groups(self.path, _wanted(self.image_field)):
            if group.problem:
                yield BadSample(key=group.key, source=self.name, reason=group.problem)
            elif not seen.add(group.key):
                yield BadSample(key=group.key, source=self.name, reason="its key occurs twice in this tar")
            else:
                yield sample_or_bad(group.key, self.name, partial(self._sample, group))

    def _sample(self, group: Group) -> Sample:
        if not group.images:
            raise RowError(f"it has no image, only {_named(group.suffixes)}")
        image = next(iter(group.images.values()))
        place = self._place(group, len(image))
        fields = parse_object(group.data["json"], "its .json") if "json" in group.data else {}
        if self.num_classes is not None:
            label = _label(group, self.num_classes)
            return LabelledImage(key=group.key, source=self.name, image=image, place=place, fields=fields, label=label)
        fields |= self._caption(group)
        if not fields:
            raise RowError("it has no text: its .txt or .json is missing")
        texts = caption_texts(fields, self.texts)
        return Pair(key=group.key, source=self.name, image=image, place=place, fields=fields, texts=texts)

    def _place(self, group: Group, size: int) -> Slice | None:
        return None if group.image_offset is None else Slice(path=self.path, offset=group.image_offset, size=size)

    def _caption(self, group: Group) -> dict[str, object]:
        """What the ``.txt`` adds to the fields."""
        if "txt" not in group.data:
            return {}
        text = decode_text(group.data["txt"], "its .txt").strip()
        lines = text.splitlines()
        return {"caption": lines[0], "captions": lines} if self.is_retrieval and lines else {"caption": text}


def open_shards(
    spec: str,
    kind: str,
    paths: Sequence[Path],
    files: SetFiles,
    *,
    texts: tuple[str, ...],
    image_field: str | None,
) -> PartList:
    """The tars at ``paths`` as one source: labelled if they hold ``.cls`` members and no texts are asked for.

    Raises:
        InputError: no tar can be read, or they are labelled and there are no class names.
    """
    is_labelled = not texts and not files.is_retrieval and _holds_labels(spec, paths)
    if is_labelled and files.classnames is None:
        raise InputError(
            f"{spec}: the shards hold labels (.cls) but no classnames.txt lies beside or above them; "
            "write one, a class name a line in the order of the labels"
        )
    classnames = files.classnames if is_labelled else None
    parts = tuple(
        TarPart(
            path=path,
            name=name,
            texts=texts,
            image_field=image_field,
            num_classes=None if classnames is None else len(classnames),
            is_retrieval=files.is_retrieval,
        )
        for path, name in zip(paths, relative_names(paths), strict=True)
    )
    return PartList(
        spec=spec,
        kind=f"{kind}, labelled" if is_labelled else kind,
        all_parts=parts,
        texts=texts,
        image_field=image_field,
        classnames=classnames,
        templates=files.templates if is_labelled else None,
        count=lambda: _count(paths),
    )


def _wanted(image_field: str | None) -> Collection[str]:
    images = IMAGE_SUFFIXES if image_field is None else {image_field.lower().removeprefix(".")}
    return {*images, *TEXT_SUFFIXES}


def _named(suffixes: Sequence[str]) -> str:
    return ", ".join(f".{suffix}" if suffix else "a member without a suffix" for suffix in suffixes[:5])


def _label(group: Group, num_classes: int) -> int:
    if "cls" not in group.data:
        raise RowError("it has no label: its .cls is missing")
    text = decode_text(group.data["cls"], "its .cls").strip()
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) is None:
        raise RowError(f"its .cls holds {text[:20]!r}, which is no index of a class")
    if int(text) >= num_classes:
        raise RowError(f"its label {text} is not below the number of class names, {num_classes}")
    return int(text)


def _holds_labels(spec: str, paths: Sequence[Path]) -> bool:
    """Whether the first readable tar holds ``.cls`` members."""
    for path in paths:
        groups = [group for group in islice(tar_groups(path, wanted=()), _NUM_PEEKED) if not group.problem]
        if groups:
            return any("cls" in group.suffixes for group in groups)
    raise InputError(f"{spec}: none of its {len(paths)} tars holds anything that can be read; make them anew")


def _count(paths: Sequence[Path]) -> int | None:
    """What img2dataset says of its shards, else the number of groups where counting them is quick."""
    stated = [_stated(path) for path in paths]
    if None not in stated:
        return sum(filter(None, stated))
    if sum(path.stat().st_size for path in paths) > _MAX_COUNTED_BYTES:
        return None
    return sum(count_groups(path) for path in paths)


def _stated(path: Path) -> int | None:
    """The number of images in ``00000_stats.json``, which img2dataset leaves beside ``00000.tar``."""
    try:
        num_images = read_json(path.with_name(f"{path.stem}_stats.json")).get("successes")
    except (InputError, OSError):
        return None
    return num_images if isinstance(num_images, int) else None
