"""The manifest: what a store's folder holds, what made it, and how far the work has come.

The manifest is the store's commit record. A shard counts once it is listed here, together with the place in
the source up to which its rows reach, so rows and place can never disagree. ``docs/store.md`` is the format.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from littune.base.errors import InputError
from littune.base.files import read_json, write_json
from littune.base.stores import MANIFEST, STORE_FORMAT
from littune.store.views import Views
from littune.towers.image.tower import Identity

VERSION = 1


def has_manifest(folder: Path) -> bool:
    """Whether there is a manifest in ``folder``, of a littune store or of something else."""
    return (folder / MANIFEST).is_file()


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One pair of files, and one more for each view, complete and synced."""

    number: int
    """What names its files."""
    rows: int
    part: str = ""
    """The part of the source that its first row came from; empty where it was not recorded."""
    img_emb_sha256: str
    metadata_sha256: str
    views_sha256: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """The place in one part of the source: what lies before it is in the store or among the skipped."""

    fingerprint: str
    """The part's fingerprint when it was read."""
    taken: int
    """How many of its samples, good and bad, have been dealt with."""
    complete: bool
    """Whether these were all."""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A row of the source that gave no row of the store."""

    key: str
    source: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What makes the rows what they are: work on a folder goes on only with equal settings."""

    kind: str
    """``images`` or ``prototypes``."""
    pairs: str
    """The spec of the pairs or labelled images; for prototypes, where the class texts come from."""
    texts: tuple[str, ...]
    """The fields that were chosen to supply the texts; empty for the source's own choice."""
    image_field: str | None = None
    """The column or suffix that was chosen to hold the image; None for the source's own choice."""
    tower: str
    """The spec of the image tower."""
    identity: Identity
    classnames: tuple[str, ...] | None
    templates: tuple[str, ...] | None
    views: Views | None = None
    """The augmented views of each image; None for the plain one alone."""

    def differences(self, asked: "Settings") -> list[str]:
        """How ``asked`` differs from these, in words; empty where it does not."""
        found = [
            f"its {what} is {mine}, not {other}"
            for what, mine, other in (
                ("kind", self.kind, asked.kind),
                ("source", Path(self.pairs), Path(asked.pairs)),
                ("choice of texts", _chosen(*self.texts), _chosen(*asked.texts)),
                ("choice of images", _chosen(self.image_field), _chosen(asked.image_field)),
                ("choice of views", self.views or "none", asked.views or "none"),
            )
            if mine != other
        ]
        identity = self.identity.differences(asked.identity)
        if identity and self.tower != asked.tower:
            found.append(f"its image tower is {self.tower}, not {asked.tower}")
        found += identity
        if self.classnames != asked.classnames:
            found.append("its class names differ")
        if self.templates != asked.templates:
            found.append("its templates differ")
        return found


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``manifest.json`` in memory."""

    settings: Settings
    provenance: Mapping[str, str]
    """Recorded, and a warning where it differs: precision, device, versions."""
    shards: tuple[Shard, ...] = ()
    parts: Mapping[str, Cursor] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    complete: bool = False
    seconds: float = field(default=0.0, compare=False)
    """What embedding took, over all the times that it was begun and all processes; 0 where it was not recorded."""

    @property
    def dim(self) -> int:
        """The width of a row."""
        return self.settings.identity.dim

    @property
    def num_views(self) -> int:
        """The views of each row, the plain one not counted."""
        return self.settings.views.num if self.settings.views else 0

    @cached_property
    def num_rows(self) -> int:
        """The rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @cached_property
    def num_taken(self) -> int:
        """The samples of the source, good and bad, that have been dealt with."""
        return sum(cursor.taken for cursor in self.parts.values())

    def in_order(self, parts: Sequence[str]) -> "Manifest":
        """The same with everything in the order of the source's parts, whatever came first in time."""
        place = {name: number for number, name in enumerate(parts)}
        return replace(
            self,
            # What earlier versions wrote without a part came first, and in order. Of one part, all is in order.
            shards=tuple(sorted(self.shards, key=lambda shard: place.get(shard.part, -1))),
            skipped=tuple(sorted(self.skipped, key=lambda row: place.get(row.source, -1))),
            parts=dict(sorted(self.parts.items(), key=lambda item: place.get(item[0], -1))),
        )

    def write(self, folder: Path) -> None:
        """Atomically write it into a store's folder."""
        settings = self.settings
        write_json(
            folder / MANIFEST,
            {
                "format": STORE_FORMAT,
                "version": VERSION,
                "kind": settings.kind,
                "complete": self.complete,
                "rows": self.num_rows,
                "dim": self.dim,
                "dtype": "float16",
                "seconds": round(self.seconds, 3),
                "pairs": settings.pairs,
                "texts": list(settings.texts),
                "image_field": settings.image_field,
                "tower": settings.tower,
                "identity": settings.identity.to_dict(),
                "provenance": dict(self.provenance),
                "classnames": _as_list(settings.classnames),
                "templates": _as_list(settings.templates),
                "views": settings.views and asdict(settings.views),
                "shards": [vars(shard) for shard in self.shards],
                "parts": {name: vars(cursor) for name, cursor in self.parts.items()},
                "skipped": [vars(row) for row in self.skipped],
            },
        )

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """The manifest of a store's folder.

        Raises:
            InputError: there is none, it is not a store's, it is of another version, or it is damaged.
        """
        path = folder / MANIFEST
        raw: dict[str, Any] = read_json(path)
        if raw.get("format") != STORE_FORMAT:
            raise InputError(f"{path} is not the manifest of a littune store; choose another folder")
        if raw.get("version") != VERSION:
            raise InputError(
                f"{path} is of version {raw.get('version')} and this littune reads version {VERSION}; "
                "update littune, or embed anew"
            )
        try:
            return cls._from_json(raw)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error!r}); restore it or embed anew into another folder") from error

    @classmethod
    def _from_json(cls, raw: Mapping[str, Any]) -> "Manifest":
        settings = Settings(
            kind=raw["kind"],
            pairs=raw["pairs"],
            texts=tuple(raw["texts"]),
            image_field=raw.get("image_field"),
            tower=raw["tower"],
            identity=Identity.from_dict(raw["identity"]),
            classnames=_as_tuple(raw["classnames"]),
            templates=_as_tuple(raw["templates"]),
            views=Views(**raw["views"]) if raw.get("views") else None,
        )
        return cls(
            settings=settings,
            provenance=raw["provenance"],
            shards=tuple(_shard(number, shard) for number, shard in enumerate(raw["shards"])),
            parts={name: Cursor(**cursor) for name, cursor in raw["parts"].items()},
            skipped=tuple(Skipped(**row) for row in raw["skipped"]),
            complete=raw["complete"],
            seconds=raw.get("seconds", 0.0),
        )


def _shard(number: int, raw: dict[str, Any]) -> Shard:
    """A shard as it is listed; earlier versions listed them by number and without part and views."""
    return Shard(**{"number": number} | raw | {"views_sha256": tuple(raw.get("views_sha256", ()))})


def _as_list(names: tuple[str, ...] | None) -> list[str] | None:
    return None if names is None else list(names)


def _as_tuple(names: list[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)


def _chosen(*names: str | None) -> str:
    return ",".join(filter(None, names)) or "the source's own"
