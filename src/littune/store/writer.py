"""StoreWriter: rows in, committed shards out; a shard is complete or absent.

A commit writes the shard's two files aside, syncs and renames them, and then replaces the manifest, which
lists the shard together with the place in the source that it reaches. A process killed between the two leaves
files that no manifest lists; the next writer deletes them.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float

from littune.base.errors import InputError, MismatchError
from littune.base.files import folder_lock
from littune.base.progress import log
from littune.store.manifest import FILENAME, Cursor, Manifest, Settings, Skipped, has_manifest
from littune.store.shards import Row, check_manifest, delete_shards_from, to_float16, write_shard

ROWS_PER_COMMIT = 512
SECONDS_PER_COMMIT = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows that are stored together or not at all, and the places in the source that they reach."""

    embeddings: Float[np.ndarray, "n dim"]
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

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self._state = _State(manifest=manifest)
        self._last_commit = time.monotonic()

    @property
    def manifest(self) -> Manifest:
        """What is committed."""
        return self._state.manifest

    def append(self, batch: Batch) -> None:
        """Take rows in; commits at ``ROWS_PER_COMMIT`` rows or after ``SECONDS_PER_COMMIT``.

        Raises:
            InputError: an embedding does not fit float16; nothing of the batch is taken.
            LittuneError: the disk is full or the folder cannot be written.
        """
        assert len(batch.embeddings) == len(batch.rows), "an embedding a row"
        assert batch.embeddings.shape[1] == self.manifest.dim, "embeddings as wide as the identity says"
        halves = to_float16(batch.embeddings, lambda row: f"{batch.rows[row].key!r} in {batch.rows[row].source}")
        if self._state.num_pending + len(batch.rows) > ROWS_PER_COMMIT:
            self.commit()
        state = self._state
        self._state = replace(state, pending=(*state.pending, replace(batch, embeddings=halves)))
        if self._state.num_pending >= ROWS_PER_COMMIT or time.monotonic() - self._last_commit >= SECONDS_PER_COMMIT:
            self.commit()

    def commit(self) -> None:
        """Write what was appended. Interrupted at any point, it can be called again.

        Raises:
            LittuneError: the disk is full or the folder cannot be written; what was committed before stands.
        """
        if self._state.pending:
            self._replace_manifest(self._with_pending())
        self._last_commit = time.monotonic()

    def finish(self) -> None:
        """Commit, and mark the store as complete."""
        self._replace_manifest(replace(self._with_pending(), complete=True))

    def discard(self) -> None:
        """Give up a store that got no row, so that its folder is free for another."""
        assert not self.manifest.shards, "only a store without rows is discarded"
        self._state = replace(self._state, pending=())
        (self.folder / FILENAME).unlink()

    def _with_pending(self) -> Manifest:
        """Write the pending rows as a shard; the manifest that lists it and all that came with it."""
        manifest, pending = self._state.manifest, self._state.pending
        shards = manifest.shards
        rows = [row for batch in pending for row in batch.rows]
        if rows:
            embeddings = np.concatenate([batch.embeddings for batch in pending])
            shards = (*shards, write_shard(self.folder, len(shards), embeddings, rows))
        return replace(
            manifest,
            shards=shards,
            skipped=manifest.skipped + tuple(row for batch in pending for row in batch.skipped),
            parts=dict(manifest.parts) | {name: at for batch in pending for name, at in batch.cursors.items()},
        )

    def _replace_manifest(self, manifest: Manifest) -> None:
        manifest.write(self.folder)
        self._state = _State(manifest=manifest)


@contextmanager
def open_writer(folder: Path, settings: Settings, provenance: Mapping[str, str]) -> Iterator[StoreWriter]:
    """Hold ``folder`` for this process alone; make a store in it or go on with one of equal settings.

    What is appended and not yet committed when the block is left, for whatever reason, is committed then, so that
    neither an error nor Ctrl-C loses it.

    Raises:
        InputError: the folder holds something that is not a store, or a damaged store.
        MismatchError: it holds a store of other settings; the message names the difference.
        LittuneError: another process writes it, or it cannot be written.
    """
    _check_free(folder)
    with folder_lock(folder):
        writer = StoreWriter(folder, _begin(folder, settings, provenance))
        try:
            yield writer
        finally:
            writer.commit()


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but a store or the traces of one that was killed at its first step."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose a folder for the store")
    if not folder.is_dir() or has_manifest(folder):
        return
    for entry in folder.iterdir():
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
    delete_shards_from(folder, len(manifest.shards))
    return manifest


def _go_on(folder: Path, settings: Settings, provenance: Mapping[str, str]) -> Manifest:
    manifest = Manifest.read(folder)
    differences = manifest.settings.differences(settings)
    if differences:
        raise MismatchError(f"{folder} is a store of other settings: {'; '.join(differences)}; choose another folder")
    check_manifest(folder, manifest)
    changed = {name: value for name, value in provenance.items() if manifest.provenance.get(name) != value}
    if manifest.complete or not changed:
        return manifest
    for name, value in changed.items():
        log(f"{folder}: earlier rows were made with {name} {manifest.provenance.get(name)}, the rest with {value}")
    return replace(manifest, provenance=_both(manifest.provenance, changed))


def _both(provenance: Mapping[str, str], changed: Mapping[str, str]) -> dict[str, str]:
    """Old and new values side by side, each once."""
    both = dict(provenance)
    for name, value in changed.items():
        known = both.get(name, "").split(" + ")
        both[name] = " + ".join(dict.fromkeys([*filter(None, known), value]))
    return both
