"""Labels: which classes a labelled set's images are to be told from, and which of them are right for each.

As the files say, or, for a known set, as its authors score it: an image may have several right classes, or none
among those that count, and is then left out.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError
from littune.base.files import read_json
from littune.evaluation.sets.registry import KnownSet
from littune.model.classnames import are_wordnet_ids, load_classnames, places_of, rename
from littune.model.shipped import real_labels, wordnet_ids
from littune.store.store import EmbeddingStore

Right = tuple[tuple[int, ...], ...]

_OF_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})", re.ASCII)

_MAPS = ("folder_to_objectnet_label.json", "objectnet_to_imagenet_1k.json")
_NUM_SHARED = 113
"""The classes that ObjectNet shares with ImageNet."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes of a labelled set, as they are called in prompts, and the right ones of each of its images."""

    classnames: tuple[str, ...]
    right: Right
    """For each row of the store the right classes, as indices into ``classnames``; empty where it is not scored."""

    def among(self, classes: Sequence[int], names: Sequence[str]) -> "Labels":
        """The labels where only these classes are to choose from, under these names; others are not scored."""
        right = _moved(self.right, range(len(self.classnames)), classes)
        return Labels(classnames=tuple(names), right=right)


def labels_of(
    store: EmbeddingStore,
    *,
    known: KnownSet | None = None,
    classnames: str | Path | Sequence[str] | None = None,
) -> Labels:
    """What each row of a labelled set is.

    A row's field ``labels``, a list of indices into the set's own class names, says that several classes are right
    (or, where it is empty, that the row is not scored); else its one label does.

    Args:
        store: the set.
        known: the known set that it is.
        classnames: what to call the classes, as ``load_classnames`` takes it; by default as the known set says, else
            by the set's own names.

    Raises:
        InputError: there is no label for each row, one is out of range, the class names do not fit the set, or a
            known set lacks what its labels come from.
        MissingExtraError: the class names ship in a package that is not installed.
    """
    own = store.classnames
    if not own:
        raise InputError(f"{store.path} has no label for each image; embed it again from a labelled set")
    right = _right_of_rows(store, len(own))
    choice = classnames or (known.classnames if known else None)
    names = load_classnames(choice) if choice else None
    return _WAYS[known.labels if known else "own"](_Set(store=store, own=own, right=right, known=known, names=names))


@dataclass(frozen=True, kw_only=True)
class _Set:
    """A labelled set as it lies in its store, and what is known or wished of it."""

    store: EmbeddingStore
    own: tuple[str, ...]
    right: Right
    known: KnownSet | None
    names: tuple[str, ...] | None


def _right_of_rows(store: EmbeddingStore, num_classes: int) -> Right:
    """The right classes of each row, as indices into the set's own class names."""
    labels = store.labels()
    if labels is None:
        raise InputError(f"{store.path} has no label for each image; embed it again from a labelled set")
    right = tuple(
        (int(label),) if several is None else several
        for label, several in zip(labels, map(_several, store.fields()), strict=True)
    )
    every = [label for its in right for label in its]
    if every and not 0 <= min(every) <= max(every) < num_classes:
        raise InputError(
            f"{store.path} has labels from {min(every)} to {max(every)} but {num_classes} class names; "
            "embed it again from a set whose class names are complete"
        )
    return right


def _several(fields: dict[str, object]) -> tuple[int, ...] | None:
    labels = fields.get("labels")
    if not isinstance(labels, list) or not all(isinstance(label, int) for label in labels):
        return None
    return tuple(dict.fromkeys(labels))


def _as_they_come(data: _Set) -> Labels:
    return Labels(classnames=rename(data.own, data.names) if data.names else data.own, right=data.right)


def _among_imagenets(data: _Set) -> Labels:
    """The classes to choose from are ImageNet's, or 200 of them, whichever of them have a folder."""
    chosen, names = _chosen(data)
    if are_wordnet_ids(data.own):
        places = places_of(data.own, wordnet_ids())
    else:
        places = tuple(chosen[place] for place in places_of(data.own, names))
    return Labels(classnames=names, right=_moved(data.right, places, chosen))


def _by_real(data: _Set) -> Labels:
    """ReaL's labels, found by the numbers in the files' names."""
    listed, right = real_labels(), []
    keys = data.store.keys()
    for key in keys:
        number = _OF_VALIDATION.search(key)
        if number is None or not 1 <= int(number[1]) <= len(listed):
            raise InputError(
                f"{data.store.path}: {key!r} is no image of ImageNet's validation split, which are named "
                "ILSVRC2012_val_00000001.JPEG; ReaL's labels go by these names"
            )
        right.append(listed[int(number[1]) - 1])
    return Labels(classnames=_chosen(data)[1], right=tuple(right))


def _by_objectnets_maps(data: _Set) -> Labels:
    """The classes that ObjectNet shares with ImageNet, under its own names for them (clip-benchmark's protocol)."""
    if len(data.own) == _NUM_SHARED:
        return _as_they_come(data)
    labels, shared = (_objectnet_map(data.store, name) for name in _MAPS)
    folders = sorted(folder for folder, label in labels.items() if label in shared)
    missing = [folder for folder in folders if folder not in data.own]
    if missing:
        raise InputError(f"{data.store.path} lacks the class {missing[0]} of ObjectNet; embed the whole folder images")
    own = tuple(str(labels[folder]).lower() for folder in folders)
    chosen = tuple(data.own.index(folder) for folder in folders)
    return Labels(
        classnames=rename(own, data.names) if data.names else own,
        right=_moved(data.right, range(len(data.own)), chosen),
    )


def _objectnet_map(store: EmbeddingStore, name: str) -> dict[str, object]:
    """One of ObjectNet's JSON maps, which lie in the folder mappings beside its images, or in a folder above them."""
    images = Path(store.manifest.settings.pairs if store.manifest else store.path).expanduser()
    folders = [images, images.parent, images.parent.parent]
    paths = [place / name for folder in folders for place in (folder / "mappings", folder)]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise InputError(f"{images}: ObjectNet's {name} is not there; put its folder mappings beside images")
    return read_json(found)


_WAYS: dict[str, Callable[[_Set], Labels]] = {
    "own": _as_they_come,
    "imagenet": _among_imagenets,
    "real": _by_real,
    "objectnet": _by_objectnets_maps,
}


def _chosen(data: _Set) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Which of ImageNet's 1,000 classes count, and their names, which are given for all of ImageNet's or for them."""
    assert data.known and data.names, "a set of ImageNet's is known, and so are names for it"
    every = wordnet_ids()
    chosen = tuple(every.index(wordnet_id) for wordnet_id in wordnet_ids(data.known.subset))
    if len(data.names) == len(every):
        return chosen, tuple(data.names[place] for place in chosen)
    if len(data.names) != len(chosen):
        raise InputError(f"there are {len(data.names)} class names for {len(chosen)} classes; give one for each")
    return chosen, data.names


def _moved(right: Right, places: Sequence[int], chosen: Sequence[int]) -> Right:
    """Right classes as indices into the chosen ones, where an own class lies at ``places`` in what they were chosen of.

    A class that was not chosen is dropped.
    """
    new = {place: index for index, place in enumerate(chosen)}
    return tuple(tuple(new[places[label]] for label in its if places[label] in new) for its in right)
