"""embed: an image tower run once over pairs or labelled images, into a store.

Reading and decoding run ahead in threads while the tower is busy. Rows, skipped samples and the place in the
source travel through the pipeline together and in order, and are committed together: whenever the process dies,
the same call goes on behind the last commit, and the rows come out as if it had never stopped.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from littune.base.errors import InputError, MismatchError
from littune.base.memory import keep_freed_memory
from littune.base.progress import Advance, log, track
from littune.pairs.base import Part, Source
from littune.store.ahead import map_ahead
from littune.store.manifest import FILENAME, Manifest, Settings, Skipped
from littune.store.ready import Ready, in_groups, prepare, read_on
from littune.store.store import EmbeddingStore
from littune.store.writer import Batch, StoreWriter, open_writer
from littune.towers.image import ImageTower

_REASONS_SHOWN = 20
_KEYS_SHOWN = 10


def embed(
    tower: ImageTower,
    pairs: Source,
    out: str | Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    strict: bool = False,
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

    Raises:
        InputError: ``out`` holds something else, there is not one usable image, or ``strict`` met a bad sample.
        MismatchError: ``out`` is a store of other settings, or the source has changed since it was begun.
        LittuneError: ``out`` cannot be written, or another process writes it.
    """
    if batch_size < 1 or workers < 1:
        raise InputError(f"batch_size is {batch_size} and workers is {workers}; both must be at least 1")
    keep_freed_memory()
    folder = Path(out)
    settings = Settings(
        kind="images",
        pairs=pairs.spec,
        texts=pairs.texts,
        image_field=pairs.image_field,
        tower=tower.spec,
        identity=tower.identity,
        classnames=pairs.classnames,
        templates=pairs.templates,
    )
    provenance = provenance_of(tower) | {"batch_size": str(batch_size)}
    with open_writer(folder, settings, provenance) as writer:
        parts = pairs.parts()
        _check_unchanged(folder, writer.manifest, parts)
        if strict and writer.manifest.skipped:
            first = writer.manifest.skipped[0]
            raise InputError(
                f"{folder} was made without {first.key} in {first.source}: {first.reason}; "
                "leave out --strict to take it as it is"
            )
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
    prepared = partial(prepare, preprocess=tower.preprocess)
    unread = read_on(parts, writer.manifest.parts)
    with closing(map_ahead(prepared, unread, workers=workers, ahead=3 * batch_size)) as ready:
        for group in in_groups(ready, batch_size):
            bad = next((item.skipped for item in group if item.skipped is not None), None)
            if strict and bad is not None:
                raise InputError(
                    f"{bad.key} in {bad.source}: {bad.reason}; mend it, or skip it by leaving out --strict"
                )
            writer.append(_embed_group(tower, group))
            advance(sum(item.row is not None or item.skipped is not None for item in group))
    writer.commit()


def _embed_group(tower: ImageTower, group: Sequence[Ready]) -> Batch:
    pixels = [item.pixels for item in group if item.pixels is not None]
    return Batch(
        embeddings=_encode(tower, pixels) if pixels else np.empty((0, tower.dim), np.float32),
        rows=[item.row for item in group if item.row is not None],
        skipped=[item.skipped for item in group if item.skipped is not None],
        cursors={item.part: item.cursor for item in group},
    )


def _encode(tower: ImageTower, pixels: Sequence[UInt8[Tensor, "3 h w"]]) -> Float32[np.ndarray, "n dim"]:
    # In the order that the pixels have in memory; and not by torch.stack, which would call on the tower's threads,
    # and wait for them, to copy a few megabytes.
    batch = torch.from_numpy(np.stack([image.permute(1, 2, 0).numpy() for image in pixels]))
    embeddings: np.ndarray = tower.encode(batch.permute(0, 3, 1, 2)).numpy()
    return embeddings


def _check_unchanged(folder: Path, manifest: Manifest, parts: Sequence[Part]) -> None:
    """The parts that the store has rows of must be there as they were, and a complete store must know them all."""
    now = {part.name: part for part in parts}
    assert len(now) == len(parts), "every part has a name of its own"
    gone = [name for name in manifest.parts if name not in now]
    new = [name for name in now if name not in manifest.parts] if manifest.complete else []
    changed = [
        name for name, cursor in manifest.parts.items() if name in now and now[name].fingerprint() != cursor.fingerprint
    ]
    for what, names in (("is gone", gone), ("has changed", changed), ("is new", new)):
        if names:
            raise MismatchError(
                f"{folder} was embedded from other data: {names[0]}{_and_more(len(names) - 1)} {what} since; "
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
    by_reason = _by_reason(manifest.skipped)
    for reason, keys in list(by_reason.items())[:_REASONS_SHOWN]:
        log(f"  skipped {len(keys):,}, {reason}: {', '.join(keys[:_KEYS_SHOWN])}{_and_more(len(keys) - _KEYS_SHOWN)}")
    if len(by_reason) > _REASONS_SHOWN or any(len(keys) > _KEYS_SHOWN for keys in by_reason.values()):
        log(f"  all {len(manifest.skipped):,} of them with their reasons: {writer.folder / FILENAME}")


def _and_more(count: int) -> str:
    return f" and {count:,} more" if count > 0 else ""


def _by_reason(skipped: Sequence[Skipped]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in skipped:
        found.setdefault(row.reason, []).append(f"{row.key} in {row.source}")
    return found
