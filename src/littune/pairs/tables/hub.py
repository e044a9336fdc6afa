"""Hugging Face data sets: ``hf:NAME_OR_DIR[@CONFIG][#SPLIT]``.

The folder may be one that ``save_to_disk`` wrote or any that ``load_dataset`` reads. Data sets are
streamed, and pictures are not decoded by ``datasets`` but handed on as they are stored.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from littune.base.errors import InputError, MissingExtraError, first_line
from littune.pairs.folders import file_names, fingerprint_of_files, folders_in
from littune.pairs.rows import PartList, RowError
from littune.pairs.tables.columns import Columns, image_column, text_columns
from littune.pairs.tables.formats import Row
from littune.pairs.tables.part import TablePart
from littune.pairs.texts import DEFAULT_FIELDS

_PREFIX = "hf:"


@dataclass(frozen=True, kw_only=True)
class HubSpec:
    """The parts of ``hf:NAME_OR_DIR[@CONFIG][#SPLIT]``."""

    name: str
    config: str | None
    split: str | None


def is_hub_spec(spec: str) -> bool:
    """Whether ``spec`` names a Hugging Face data set."""
    return spec.startswith(_PREFIX)


def parse_hub_spec(spec: str) -> HubSpec:
    """The parts of a spec; a folder may have ``@`` and ``#`` in its name.

    Raises:
        InputError: there is no name.
    """
    rest = spec.removeprefix(_PREFIX)
    if rest.startswith("~"):
        rest = str(Path(rest).expanduser())
    if rest and Path(rest).is_dir():
        return HubSpec(name=rest, config=None, split=None)
    rest, _, split = rest.partition("#")
    name, _, config = (rest, "", "") if Path(rest).is_dir() else rest.partition("@")
    if not name:
        raise InputError(f"{spec} names no data set; write hf:NAME_OR_DIR[@CONFIG][#SPLIT]")
    return HubSpec(name=name, config=config or None, split=split or None)


def open_hub(spec: str, *, texts: tuple[str, ...], image_field: str | None) -> PartList:
    """One split of a Hugging Face data set: labelled if it has class labels and no texts.

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        InputError: the data set cannot be loaded, has several splits and none was named, or its columns
            are not known or not told apart.
    """
    datasets = _datasets()
    parsed = parse_hub_spec(spec)
    split, data = _one_split(spec, parsed, _load(datasets, spec, parsed))
    features = _features(spec, data)
    columns = _columns(spec, datasets, features, texts, image_field)
    part = TablePart(
        name=split,
        folder=Path(parsed.name),
        columns=columns,
        rows=partial(_rows, _encoded(datasets, data, features, columns.image), columns.image, Path(parsed.name)),
        mark=partial(_mark, parsed, split, data),
        num_images=_num_rows(datasets, split, data),
    )
    return PartList(
        spec=spec,
        kind="Hugging Face data set" + (", labelled" if columns.label else ""),
        all_parts=(part,),
        texts=texts,
        image_field=image_field,
        classnames=columns.classnames if columns.label else None,
        count=lambda: part.num_images,
    )


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("hf: (Hugging Face data sets)", "hf") from error
    return datasets


def _load(datasets: Any, spec: str, parsed: HubSpec) -> Any:
    folder = Path(parsed.name)
    try:
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            return datasets.load_from_disk(parsed.name)
        return datasets.load_dataset(parsed.name, parsed.config, streaming=True)
    # The library, its file systems and the network fail with errors of a dozen kinds.
    except Exception as error:
        raise InputError(f"{spec} cannot be loaded: {first_line(error)}") from error


def _one_split(spec: str, parsed: HubSpec, loaded: Any) -> tuple[str, Any]:
    """The split that was named, or else the only one."""
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
    names = ", ".join(splits)
    split = parsed.split or (next(iter(splits)) if len(splits) == 1 else None)
    if split is None:
        raise InputError(f"{spec} has several splits ({names}); name one, as in {spec}#{next(iter(splits))}")
    if split not in splits:
        raise InputError(f"{spec} has no split {split!r}; it has {names}")
    return split, splits[split]


def _features(spec: str, data: Any) -> dict[str, Any]:
    """Column → its type, None where a streamed format (CSV, JSON) does not say."""
    if data.features is not None:
        return dict(data.features)
    try:
        first = next(iter(data), None)
    except Exception as error:
        raise InputError(f"{spec} cannot be read: {first_line(error)}") from error
    if first is None:
        raise InputError(f"{spec} is empty")
    return dict.fromkeys(first)


def _columns(
    spec: str, datasets: Any, features: dict[str, Any], texts: tuple[str, ...], image_field: str | None
) -> Columns:
    pictures = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name, feature in features.items() if isinstance(feature, datasets.ClassLabel)]
    names = list(features)
    image = image_column(spec, names, binary=pictures, image_field=image_field)
    key = "key" if "key" in features else None
    if texts or not labels or any(name in features for name in DEFAULT_FIELDS):
        return Columns(image=image, texts=text_columns(spec, names, texts), key=key)
    if len(labels) > 1:
        raise InputError(f"{spec} has several labels ({', '.join(labels)}); keep one with remove_columns, save_to_disk")
    return Columns(image=image, key=key, label=labels[0], classnames=tuple(features[labels[0]].names))


def _encoded(datasets: Any, data: Any, features: dict[str, Any], image: str) -> Any:
    """``data`` with its pictures as they are stored, and without what else would have to be decoded."""
    media = (datasets.Image, datasets.Audio, datasets.Video)
    data = data.remove_columns([name for name, kind in features.items() if isinstance(kind, media) and name != image])
    if isinstance(features[image], datasets.Image):
        data = data.cast_column(image, datasets.Image(decode=False))
    return data


def _rows(data: Any, image: str, folder: Path) -> Iterator[tuple[str, Row]]:
    number = 0
    try:
        for row in data:
            number += 1
            yield f"row {number}", row | {image: _relative(row[image], folder)}
    # Files, arrow and the network fail in their own ways, at any row of a streamed set.
    except Exception as error:
        yield f"row {number + 1}", RowError(f"reading stopped here ({first_line(error)}); what follows is lost")


def _relative(cell: object, folder: Path) -> object:
    """A picture as it is stored; of a file in ``folder``, whose absolute path ``datasets`` gives, the relative one."""
    if isinstance(cell, dict) and not cell["bytes"] and cell["path"]:
        path = Path(cell["path"])
        return str(path.relative_to(folder.absolute())) if path.is_relative_to(folder.absolute()) else cell
    return cell


def _num_rows(datasets: Any, split: str, data: Any) -> int | None:
    """The rows of the split, where that is known: on disk always, streamed if the set's card says so."""
    if isinstance(data, datasets.Dataset):
        return int(data.num_rows)
    if isinstance(data.info.splits, dict) and split in data.info.splits:
        num_examples = data.info.splits[split].num_examples
        return num_examples if isinstance(num_examples, int) and num_examples > 0 else None
    return None


def _mark(parsed: HubSpec, split: str, data: Any) -> str:
    """The files of a folder; of a set on the hub, what its card says of the split."""
    root = Path(parsed.name)
    if root.is_dir():
        marks = [fingerprint_of_files(folder, file_names(folder)) for folder in folders_in(root)]
        return sha256(" ".join(marks).encode()).hexdigest()
    described = (parsed, split, data.info.version, data.info.splits, data.info.features)
    return sha256(repr(described).encode()).hexdigest()
