"""embed: an image tower run once over pairs or labelled images, into a store.

Reading and decoding run ahead in threads while the tower is busy. Rows, skipped samples and the place in the
source travel through the pipeline together and in order, and are committed together: whenever the process dies,
the same call goes on behind the last commit, and the rows come out as if it had never stopped.
"""

import hashlib
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from littune.base.errors import InputError, MismatchError
from littune.base.progress import Advance, log, track
from littune.pairs.base import BadSample, LabelledImage, Pair, Part, Sample, Source
from littune.pairs.decode import DecodeError, decode, read_encoded
from littune.store.ahead import map_ahead
from littune.store.manifest import Cursor, Manifest, Settings, Skipped
from littune.store.shards import Row
from littune.store.store import EmbeddingStore
from littune.store.writer import ROWS_PER_COMMIT, Batch, StoreWriter, open_writer
from littune.towers.image import ImageTower

_KEYS_SHOWN = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class _Read:
    """A sample of a part, or its end, and the place behind it."""

    part: str
    cursor: Cursor
    sample: Sample | BadSample | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ready:
    """What came of a sample: a row with its pixels, or a reason to skip it, or (its part's end) neither."""

    part: str
    cursor: Cursor
    row: Row | None = None
    pixels: UInt8[Tensor, "3 h w"] | None = None
    skipped: Skipped | None = None


def embed(
    tower: ImageTower,
    pairs: Source,
    out: str | Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    strict: bool = False,
    texts: Sequence[str] = (),
) -> EmbeddingStore:
    """Embed every image of ``pairs`` into a store at ``out``; an unfinished store of equal settings goes on.

    At most 512 rows or 30 seconds of work are lost when the process is killed, none on Ctrl-C or an error. Images
    that cannot be read are skipped, counted and named.

    Args:
        tower: the image tower, on its device and in its precision.
        pairs: pairs or labelled images.
        out: the store's folder.
        batch_size: images that the tower takes at once.
        workers: threads that decode.
        strict: make the first bad sample an error.
        texts: the choice of text fields that ``pairs`` was opened with, which is recorded with the store.

    Raises:
        InputError: ``out`` holds something else, there is not one usable image, or ``strict`` met a bad sample.
        MismatchError: ``out`` is a store of other settings, or the source has changed since it was begun.
        LittuneError: ``out`` cannot be written, or another process writes it.
    """
    folder = Path(out)
    settings = Settings(
        kind="images",
        pairs=pairs.spec,
        texts=tuple(texts),
        tower=tower.spec,
        identity=tower.identity,
        classnames=pairs.classnames,
        templates=pairs.templates,
    )
    with open_writer(folder, settings, provenance_of(tower)) as writer:
        parts = pairs.parts()
        _check_unchanged(folder, writer.manifest, parts)
        if strict and writer.manifest.skipped:
            first = writer.manifest.skipped[0]
            raise InputError(f"{folder} skipped bad samples, such as {first.key} in {first.source}: {first.reason}")
        if writer.manifest.complete:
            log(f"{folder} is complete: {writer.manifest.num_rows:,} rows of {tower.spec}; nothing to do")
        else:
            _run(tower, pairs, parts, writer, batch_size=batch_size, workers=workers, strict=strict)
    return EmbeddingStore.open(folder)


def provenance_of(tower: ImageTower) -> dict[str, str]:
    """What is recorded of how a tower ran: rows may differ by rounding between these (and between batches)."""
    return {
        "device": str(tower.device),
        "precision": tower.precision,
        "machine": platform.machine(),
        **{package: version(package) for package in ("littune", "torch", "timm", "transformers", "pillow")},
    }


def _run(
    tower: ImageTower,
    pairs: Source,
    parts: Sequence[Part],
    writer: StoreWriter,
    *,
    batch_size: int,
    workers: int,
    strict: bool,
) -> None:
    before = writer.manifest
    done = sum(cursor.taken for cursor in before.parts.values())
    log(f"embedding {pairs.spec} ({pairs.kind}) with {tower.spec} into {writer.folder}")
    if done:
        log(f"going on behind {done:,} images of an earlier run ({before.num_rows:,} rows)")
    started = time.monotonic()
    try:
        with track("embedding", total=pairs.num_samples, unit="images") as advance:
            advance(done)
            _fill(writer, tower, parts, advance, batch_size=batch_size, workers=workers, strict=strict)
    except KeyboardInterrupt:
        writer.commit()
        log(f"stopped; {writer.manifest.num_rows:,} rows are kept in {writer.folder}: the same command goes on")
        raise
    if not writer.manifest.num_rows:
        _refuse_empty(pairs, writer)
    writer.finish()
    _report(writer, before, time.monotonic() - started)


def _fill(
    writer: StoreWriter,
    tower: ImageTower,
    parts: Sequence[Part],
    advance: Advance,
    *,
    batch_size: int,
    workers: int,
    strict: bool,
) -> None:
    def prepare(read: _Read) -> _Ready:
        return _prepare(read, tower)

    unread = _unread(parts, writer.manifest)
    with closing(map_ahead(prepare, unread, workers=workers, ahead=3 * batch_size)) as ready:
        for group in _groups(ready, batch_size):
            bad = next((item.skipped for item in group if item.skipped is not None), None)
            if strict and bad is not None:
                raise InputError(
                    f"{bad.key} in {bad.source}: {bad.reason}; mend it, or skip it by leaving out --strict"
                )
            writer.append(_embed_group(tower, group))
            advance(sum(item.row is not None or item.skipped is not None for item in group))
    writer.commit()


def _unread(parts: Sequence[Part], manifest: Manifest) -> Iterator[_Read]:
    """The samples behind the manifest's cursors, and behind each part's last its end."""
    for part in parts:
        cursor = manifest.parts.get(part.name)
        if cursor is not None and cursor.complete:
            continue
        fingerprint = part.fingerprint() if cursor is None else cursor.fingerprint
        before = 0 if cursor is None else cursor.taken
        taken = 0
        for taken, sample in enumerate(part.samples(), 1):
            if taken > before:
                yield _Read(
                    part=part.name, cursor=Cursor(fingerprint=fingerprint, taken=taken, complete=False), sample=sample
                )
        yield _Read(part=part.name, cursor=Cursor(fingerprint=fingerprint, taken=taken, complete=True), sample=None)


def _prepare(read: _Read, tower: ImageTower) -> _Ready:
    """Decode a sample and cut its pixels to the tower's size."""
    sample = read.sample
    if sample is None:
        return _Ready(part=read.part, cursor=read.cursor)
    if isinstance(sample, BadSample):
        skipped = Skipped(key=sample.key, source=sample.source, reason=sample.reason)
        return _Ready(part=read.part, cursor=read.cursor, skipped=skipped)
    try:
        encoded = read_encoded(sample.image)
        pixels = tower.preprocess(decode(encoded))
    except DecodeError as error:
        skipped = Skipped(key=sample.key, source=sample.source, reason=str(error))
        return _Ready(part=read.part, cursor=read.cursor, skipped=skipped)
    row = Row(
        key=sample.key,
        source=sample.source,
        texts=sample.texts if isinstance(sample, Pair) else (),
        label=sample.label if isinstance(sample, LabelledImage) else None,
        image_sha256=hashlib.sha256(encoded).hexdigest(),
        fields=sample.fields,
    )
    return _Ready(part=read.part, cursor=read.cursor, row=row, pixels=pixels)


def _groups(ready: Iterator[_Ready], batch_size: int) -> Iterator[list[_Ready]]:
    """Cut the stream where ``batch_size`` images are together, or where as much has been skipped as fills a shard."""
    group: list[_Ready] = []
    images = 0
    for item in ready:
        group.append(item)
        images += item.pixels is not None
        if images == batch_size or len(group) - images >= ROWS_PER_COMMIT:
            yield group
            group, images = [], 0
    if group:
        yield group


def _embed_group(tower: ImageTower, group: Sequence[_Ready]) -> Batch:
    pixels = [item.pixels for item in group if item.pixels is not None]
    return Batch(
        embeddings=_encode(tower, pixels) if pixels else np.empty((0, tower.dim), np.float32),
        rows=[item.row for item in group if item.row is not None],
        skipped=[item.skipped for item in group if item.skipped is not None],
        cursors={item.part: item.cursor for item in group},
    )


def _encode(tower: ImageTower, pixels: Sequence[UInt8[Tensor, "3 h w"]]) -> Float32[np.ndarray, "n dim"]:
    return tower.encode(torch.stack(list(pixels))).numpy()


def _check_unchanged(folder: Path, manifest: Manifest, parts: Sequence[Part]) -> None:
    """The parts that the store has rows of must be there as they were, and a complete store must know them all."""
    now = {part.name: part for part in parts}
    gone = [name for name in manifest.parts if name not in now]
    new = [name for name in now if name not in manifest.parts] if manifest.complete else []
    changed = [
        name for name, cursor in manifest.parts.items() if name in now and now[name].fingerprint() != cursor.fingerprint
    ]
    for what, names in (("is gone", gone), ("has changed", changed), ("is new", new)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise MismatchError(
                f"{folder} was embedded from other data: {names[0]}{more} {what} since; "
                "restore it or choose another folder"
            )


def _refuse_empty(pairs: Source, writer: StoreWriter) -> None:
    skipped = writer.manifest.skipped
    writer.discard()
    if not skipped:
        raise InputError(f"{pairs.spec} ({pairs.kind}) holds no images; check the spec")
    first = skipped[0]
    raise InputError(
        f"{pairs.spec} ({pairs.kind}) holds no usable image: all {len(skipped):,} were skipped, "
        f"the first {first.key} in {first.source}: {first.reason}"
    )


def _report(writer: StoreWriter, before: Manifest, seconds: float) -> None:
    manifest = writer.manifest
    rows = manifest.num_rows - before.num_rows
    earlier = f" ({before.num_rows:,} earlier)" if before.num_rows else ""
    log(
        f"embedded {manifest.num_rows:,} images{earlier} into {writer.folder}, "
        f"{rows / max(seconds, 1e-9):,.1f} images/s, skipped {len(manifest.skipped):,}"
    )
    for reason, keys in _by_reason(manifest.skipped).items():
        more = (
            f" and {len(keys) - _KEYS_SHOWN:,} more (see {writer.folder}/manifest.json)"
            if len(keys) > _KEYS_SHOWN
            else ""
        )
        log(f"  skipped {len(keys):,}, {reason}: {', '.join(keys[:_KEYS_SHOWN])}{more}")


def _by_reason(skipped: Sequence[Skipped]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in skipped:
        found.setdefault(row.reason, []).append(f"{row.key} in {row.source}")
    return found
