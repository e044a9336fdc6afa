"""StoreWriter: rows in, committed shards out; a shard is complete or absent.

A commit writes the shard's files aside, syncs and renames them, and then replaces the manifest, which lists the
shard together with the place in the source that it reaches. A process killed between the two leaves files that
no manifest lists; the next writer deletes them.

Several ranks may write one store. Each commits in its turn, on top of what the manifest says by then; what is
listed in the order of time meanwhile is put into the order of the source's parts when all of them are done.
"""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from littune.base.errors import InputError, LittuneError, MismatchError
from littune.base.files import commit_lock, folder_lock
from littune.base.progress import log
from littune.base.stores import MANIFEST
from littune.store.manifest import Cursor, Manifest, Settings, Shard, Skipped, has_manifest
from littune.store.shards import Row, check_manifest, delete_unlisted, to_float16, write_shard

ROWS_PER_COMMIT = 512
SECONDS_PER_COMMIT = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows that are stored together or not at all, and the places in the source that they reach."""

    embeddings: Float[np.ndarray, "n dim"]
    views: Sequence[Float[np.ndarray, "n dim"]] = ()
    """The embeddings of the rows' augmented views, one array a view."""
    rows: Sequence[Row]
    skipped: Sequence[Skipped] = ()
    cursors: Mapping[str, Cursor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class _State:
    """Changes in one assignment, so that no interrupt can part what is committed from what is pending."""

    manifest: Manifest
    pending: tuple[Batch, ...] = ()

    @property
    def num_pending(self) -> int:
        return sum(len(batch.rows) for batch in self.pending)


class StoreWriter:
    """Appends rows to a store's folder; ``open_writer`` makes one."""

    def __init__(self, folder: Path, manifest: Manifest, parts: Sequence[str] = ()) -> None:
        self.folder = folder
        self._parts = tuple(parts)
        self._place = {name: number for number, name in enumerate(parts)}
        self._state = _State(manifest=manifest)
        self._last_commit = time.monotonic()

    @property
    def manifest(self) -> Manifest:
        """What is committed; of other ranks' work, what was when this one last looked."""
        return self._state.manifest

    @property
    def num_taken(self) -> int:
        """The samples that have been dealt with, those among them that are not yet committed too."""
        return self.manifest.num_taken + sum(len(batch.rows) + len(batch.skipped) for batch in self._state.pending)

    def append(self, batch: Batch) -> None:
        """Take rows in; commits at ``ROWS_PER_COMMIT`` rows or after ``SECONDS_PER_COMMIT``.

        Raises:
            InputError: an embedding does not fit float16; nothing of the batch is taken.
            LittuneError: the disk is full or the folder cannot be written, or another process took the same rows.
        """
        assert len(batch.embeddings) == len(batch.rows), "an embedding a row"
        assert batch.embeddings.shape[1] == self.manifest.dim, "embeddings as wide as the identity says"
        assert len(batch.views) == self.manifest.num_views, "as many views as the settings say"
        plain, *views = (to_float16(each, partial(_name, batch.rows)) for each in (batch.embeddings, *batch.views))
        if self._state.num_pending + len(batch.rows) > ROWS_PER_COMMIT:
            self.commit()
        state = self._state
        self._state = replace(state, pending=(*state.pending, replace(batch, embeddings=plain, views=views)))
        if self._state.num_pending >= ROWS_PER_COMMIT or time.monotonic() - self._last_commit >= SECONDS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Write what was appended. Interrupted at any point, it can be called again.

        Raises:
            LittuneError: the disk is full or the folder cannot be written, or another process took the same rows;
                what was committed before stands.
        """
        if self._state.pending:
            with commit_lock(self.folder):
                self._replace_manifest(self._timed(self._with_pending()))
            self._last_commit = time.monotonic()

    def finish(self) -> None:
        """Commit, and mark the store as complete if all of its parts are: of several ranks, the last one does."""
        with commit_lock(self.folder):
            manifest = self._timed(self._with_pending())
            done = {name for name, cursor in manifest.parts.items() if cursor.complete}
            if done.issuperset(self._parts):
                manifest = replace(manifest.in_order(self._parts), complete=True)
            self._replace_manifest(manifest)

    def look(self) -> None:
        """Take note of what other ranks have committed."""
        self._state = replace(self._state, manifest=self._committed())

    def discard(self) -> None:
        """Give up a store that got no row, so that its folder is free for another."""
        assert not self.manifest.shards, "only a store without rows is discarded"
        self._state = replace(self._state, pending=())
        (self.folder / MANIFEST).unlink(missing_ok=True)

    def _committed(self) -> Manifest:
        if not has_manifest(self.folder):
            raise LittuneError(f"{self.folder} was given up or deleted by another process")
        return Manifest.read(self.folder)

    def _with_pending(self) -> Manifest:
        """Write the pending rows as shards; the manifest that lists them and all that came with them."""
        manifest, pending = self._committed(), self._state.pending
        reached = {name: cursor for batch in pending for name, cursor in batch.cursors.items()}
        if reached and all(manifest.parts.get(name) == cursor for name, cursor in reached.items()):
            # They are written; an interrupt kept this from being noted.
            return manifest
        self._check_untouched(manifest, reached)
        return replace(
            manifest,
            shards=manifest.shards + self._write_pending(manifest, reached.keys() - manifest.parts.keys()),
            skipped=manifest.skipped + tuple(row for batch in pending for row in batch.skipped),
            parts=dict(manifest.parts) | reached,
        )

    def _check_untouched(self, manifest: Manifest, reached: Collection[str]) -> None:
        """The parts must be where this process left them, else another one has taken the same rows."""
        for name in reached:
            if manifest.parts.get(name) != self.manifest.parts.get(name):
                self._state = replace(self._state, pending=())
                raise LittuneError(
                    f"another process has embedded {name} into {self.folder} meanwhile; stop it, and run this again"
                )

    def _write_pending(self, manifest: Manifest, new: Collection[str]) -> tuple[Shard, ...]:
        """Write the pending rows; ``new`` are the parts that no earlier shard has rows of."""
        pending = self._state.pending
        rows = [row for batch in pending for row in batch.rows]
        if not rows:
            return ()
        embeddings = np.concatenate([np.stack([batch.embeddings, *batch.views]) for batch in pending], axis=1)
        first = 1 + max((shard.number for shard in manifest.shards), default=-1)
        cuts = [place for place in range(1, len(rows)) if self._is_cut(rows[place - 1], rows[place], new)]
        return tuple(
            write_shard(self.folder, number, embeddings[:, start:stop], rows[start:stop])
            for number, (start, stop) in enumerate(pairwise([0, *cuts, len(rows)]), first)
        )

    def _is_cut(self, row: Row, following: Row, new: Collection[str]) -> bool:
        """Whether a shard ends between two rows: it holds one part, or several that nothing will ever come between."""
        if row.source == following.source or not self._parts:
            return False
        between = self._parts[self._place[row.source] + 1 : self._place[following.source] + 1]
        return not all(name in new for name in between)

    def _timed(self, manifest: Manifest) -> Manifest:
        return replace(manifest, seconds=manifest.seconds + time.monotonic() - self._last_commit)

    def _replace_manifest(self, manifest: Manifest) -> None:
        manifest.write(self.folder)
        self._state = _State(manifest=manifest)


@contextmanager
def open_writer(
    folder: Path, settings: Settings, provenance: Mapping[str, str], *, parts: Sequence[str] = (), group: str = ""
) -> Iterator[StoreWriter]:
    """Hold ``folder`` for this process or its group; make a store in it or go on with one of equal settings.

    What is appended and not yet committed when the block is left, for whatever reason, is committed then, so that
    neither an error nor Ctrl-C loses it.

    Args:
        folder: the store.
        settings: what makes the rows what they are.
        provenance: what is recorded beside.
        parts: the names of all parts of the source, in their order; rows of each come in order, from one process at
            a time. They may be left out where rows come in order from this process alone.
        group: what the ranks have in common that write the store together; empty for one alone.

    Raises:
        InputError: the folder holds something that is not a store, or a damaged store.
        MismatchError: it holds a store of other settings; the message names the difference.
        LittuneError: another process writes it, or it cannot be written.
    """
    _check_free(folder)
    with folder_lock(folder, group):
        with commit_lock(folder):
            manifest = _begin(folder, settings, provenance)
        writer = StoreWriter(folder, manifest, parts)
        try:
            yield writer
        finally:
            writer.commit()


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but a store or the traces of one that was killed at its first step."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for the store")
    entries = list(folder.iterdir()) if folder.is_dir() else []
    # Looked for behind the entries: another rank may be making the store.
    if has_manifest(folder):
        return
    for entry in entries:
        harmless = entry.name.startswith(".") or (entry.is_dir() and not any(entry.iterdir()))
        if not harmless:
            raise InputError(f"{folder} holds other things ({entry.name}) and no store; choose an empty folder")


def _begin(folder: Path, settings: Settings, provenance: Mapping[str, str]) -> Manifest:
    """The manifest to go on from, which is on disk before the first row is."""
    if not has_manifest(folder):
        manifest = Manifest(settings=settings, provenance=provenance)
        manifest.write(folder)
    else:
        manifest = _go_on(folder, settings, provenance)
    delete_unlisted(folder, manifest)
    return manifest


def _go_on(folder: Path, settings: Settings, provenance: Mapping[str, str]) -> Manifest:
    manifest = Manifest.read(folder)
    differences = manifest.settings.differences(settings)
    if differences:
        raise MismatchError(f"{folder} is a store of other settings: {'; '.join(differences)}; choose another folder")
    check_manifest(folder, manifest)
    known = manifest.provenance
    changed = {name: value for name, value in provenance.items() if value not in known.get(name, "").split(" + ")}
    if manifest.complete or not changed:
        return manifest
    for name, value in changed.items():
        log(f"{folder}: earlier rows were made with {name} {known.get(name)}, the rest with {value}")
    manifest = replace(manifest, provenance=_both(known, changed))
    manifest.write(folder)
    return manifest


def _name(rows: Sequence[Row], number: int) -> str:
    return f"{rows[number].key!r} in {rows[number].source}"


def _both(provenance: Mapping[str, str], changed: Mapping[str, str]) -> dict[str, str]:
    """Old and new values side by side, each once."""
    both = dict(provenance)
    for name, value in changed.items():
        known = both.get(name, "").split(" + ")
        both[name] = " + ".join(dict.fromkeys([*filter(None, known), value]))
    return both
