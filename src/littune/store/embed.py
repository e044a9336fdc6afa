"""embed: an image tower run once over pairs or labelled images, into a store.

Reading and decoding run ahead in threads while the tower is busy. Rows, skipped samples and the place in the
source travel through the pipeline together and in order, and are committed together: whenever the process dies,
the same call goes on behind the last commit, and the rows come out as if it had never stopped.

Several ranks share out the parts of the source and write into the same folder; they need tell each other nothing else.
"""

import platform
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from littune.base.distributed import ALONE, Ranks, launch_name
from littune.base.errors import InputError, MismatchError
from littune.base.memory import keep_freed_memory
from littune.base.progress import log, track
from littune.config import Augment
from littune.pairs.base import Part, Source
from littune.pairs.open import open_pairs
from littune.store.ahead import map_ahead
from littune.store.manifest import Manifest, Settings
from littune.store.ready import Ready, in_groups, prepare, read_on
from littune.store.report import and_more, report
from littune.store.store import EmbeddingStore
from littune.store.views import Views, views_of
from littune.store.writer import Batch, StoreWriter, open_writer
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower

_SECONDS_BETWEEN_LOOKS = 0.5


def embed(
    tower: ImageTower | str,
    pairs: Source | str | Path,
    out: str | Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    strict: bool = False,
    views: int = 0,
    augment: Augment = "none",
    flip: bool = False,
    seed: int = 0,
    ranks: Ranks = ALONE,
) -> EmbeddingStore:
    """Embed every image of ``pairs`` into a store at ``out``; an unfinished store of equal settings goes on.

    At most 512 rows or 30 seconds of work are lost when the process is killed, none on Ctrl-C or an error. Images
    that cannot be read are skipped, counted and named.

    Args:
        tower: the image tower, on its device and in its precision; or its spec.
        pairs: pairs or labelled images, or their spec.
        out: the store's folder.
        batch_size: pictures that the tower takes at once.
        workers: threads that decode.
        strict: make the first bad sample an error.
        views: how many augmented views of each image are embedded beside the plain one.
        augment: what part of the image a view shows (``littune.towers.image.augment``).
        flip: mirror half of the views.
        seed: decides what is drawn for the views.
        ranks: which this is of several processes that embed the same pairs into the same folder together; each of
            them returns when all have done their share.

    Raises:
        InputError: a spec cannot be used, ``out`` holds something else, there is not one usable image, ``strict`` met
            a bad sample, or the views would repeat one picture.
        MismatchError: ``out`` is a store of other settings, or the source has changed since it was begun.
        LittuneError: ``out`` cannot be written, or another process writes it.
    """
    if batch_size < 1 or workers < 1:
        raise InputError(f"batch_size is {batch_size} and workers is {workers}; both must be at least 1")
    if isinstance(pairs, str | Path):
        pairs = open_pairs(pairs)
    if isinstance(tower, str):
        tower = load_image_tower(tower)
    keep_freed_memory()
    folder = Path(out)
    settings = _settings(tower, pairs, views_of(views, augment, flip=flip, seed=seed))
    provenance = provenance_of(tower) | {"batch_size": str(batch_size)}
    parts = pairs.parts()
    names = [part.name for part in parts]
    mine = parts[ranks.rank :: ranks.size]
    group = "" if ranks.size == 1 else launch_name()
    with open_writer(folder, settings, provenance, parts=names, group=group) as writer:
        _check_unchanged(folder, writer.manifest, names, mine)
        if strict:
            _check_none_skipped(folder, writer.manifest)
        if not (writer.manifest.complete and writer.manifest.num_rows):
            _run(tower, pairs, mine, writer, ranks, batch_size=batch_size, workers=workers, strict=strict)
        elif ranks.is_first:
            log(f"{folder} is complete: {writer.manifest.num_rows:,} rows of {tower.spec}; nothing to do")
    return EmbeddingStore.open(folder)


def provenance_of(tower: ImageTower) -> dict[str, str]:
    """What is recorded of how a tower ran: rows may differ by rounding between these (and between batches)."""
    return {
        "runtime": tower.trunk.runtime,
        "device": tower.device.type,
        "precision": tower.precision,
        "machine": platform.machine(),
        **{package: version(package) for package in ("littune", "torch", "timm", "transformers", "pillow")},
    }


def _settings(tower: ImageTower, pairs: Source, views: Views | None) -> Settings:
    return Settings(
        kind="images",
        pairs=pairs.spec,
        texts=pairs.texts,
        image_field=pairs.image_field,
        tower=tower.spec,
        identity=tower.identity,
        classnames=pairs.classnames,
        templates=pairs.templates,
        views=views,
    )


def _run(
    tower: ImageTower,
    pairs: Source,
    parts: Sequence[Part],
    writer: StoreWriter,
    ranks: Ranks,
    *,
    batch_size: int,
    workers: int,
    strict: bool,
) -> None:
    before = writer.manifest
    if ranks.is_first:
        among = f" on {ranks.size} ranks" if ranks.size > 1 else ""
        log(f"embedding {pairs.spec} ({pairs.kind}) with {tower.spec} into {writer.folder}{among}")
        if before.num_taken:
            log(f"going on behind {before.num_taken:,} images of an earlier run ({before.num_rows:,} rows)")
    started = time.monotonic()
    total, shown = pairs.num_samples if ranks.is_first else None, 0
    work = _work(tower, parts, writer, ranks, batch_size=batch_size, workers=workers, strict=strict)
    try:
        with track("embedding", total=total, unit="images", quiet=not ranks.is_first) as advance, closing(work):
            for num_taken in work:
                advance(num_taken - shown)
                shown = num_taken
    except KeyboardInterrupt:
        writer.commit()
        if ranks.is_first:
            log(f"stopped; {writer.manifest.num_rows:,} rows are kept in {writer.folder}: the same command goes on")
        raise
    if not writer.manifest.num_rows:
        _refuse_empty(pairs, writer)
    if ranks.is_first:
        report(writer.folder, before, writer.manifest, time.monotonic() - started)


def _work(
    tower: ImageTower,
    parts: Sequence[Part],
    writer: StoreWriter,
    ranks: Ranks,
    *,
    batch_size: int,
    workers: int,
    strict: bool,
) -> Generator[int, None, None]:
    """Fill the store and finish it, or look on until another rank has; yields how many samples are dealt with."""
    yield writer.num_taken
    num_views = writer.manifest.num_views
    # An image goes through the tower together with its views, so fewer images make a batch.
    num_images = max(1, batch_size // (1 + num_views))
    prepared = partial(prepare, preprocess=tower.preprocess, views=writer.manifest.settings.views)
    unread = read_on(parts, writer.manifest.parts)
    with closing(map_ahead(prepared, unread, workers=workers, ahead=3 * num_images)) as ready:
        for group in in_groups(ready, num_images):
            if strict:
                _refuse_bad(group)
            writer.append(_embed_group(tower, group, num_views, batch_size))
            yield writer.num_taken
    writer.finish()
    yield writer.num_taken
    if ranks.is_first and not writer.manifest.complete:
        log("this rank has done its share; waiting for the others")
    while not writer.manifest.complete:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        writer.look()
        yield writer.num_taken


def _embed_group(tower: ImageTower, group: Sequence[Ready], num_views: int, batch_size: int) -> Batch:
    pixels = [picture for item in group for picture in item.pixels]
    rows = [item.row for item in group if item.row is not None]
    cuts = [pixels[start : start + batch_size] for start in range(0, len(pixels), batch_size)]
    encoded = np.concatenate([np.empty((0, tower.dim), np.float32), *(_encode(tower, cut) for cut in cuts)])
    plain, *views = encoded.reshape(len(rows), 1 + num_views, tower.dim).swapaxes(0, 1)
    return Batch(
        embeddings=plain,
        views=views,
        rows=rows,
        skipped=[item.skipped for item in group if item.skipped is not None],
        cursors={item.part: item.cursor for item in group},
    )


def _encode(tower: ImageTower, pixels: Sequence[UInt8[Tensor, "3 h w"]]) -> Float32[np.ndarray, "n dim"]:
    # In the order that the pixels have in memory; and not by torch.stack, which would call on the tower's threads,
    # and wait for them, to copy a few megabytes.
    batch = torch.from_numpy(np.stack([image.permute(1, 2, 0).numpy() for image in pixels]))
    embeddings: np.ndarray = tower.encode(batch.permute(0, 3, 1, 2)).numpy()
    return embeddings


def _check_unchanged(folder: Path, manifest: Manifest, names: Sequence[str], mine: Sequence[Part]) -> None:
    """The parts that the store has rows of must be there as they were, and a complete store must know them all."""
    there = set(names)
    assert len(there) == len(names), "every part has a name of its own"
    known = manifest.parts
    gone = [name for name in known if name not in there]
    new = [name for name in names if name not in known] if manifest.complete else []
    # Each rank looks into the parts that it is to read.
    changed = [part.name for part in mine if part.name in known and part.fingerprint() != known[part.name].fingerprint]
    for what, some in (("is gone", gone), ("has changed", changed), ("is new", new)):
        if some:
            raise MismatchError(
                f"{folder} was embedded from other data: {some[0]}{and_more(len(some) - 1)} {what} since; "
                "restore it or choose another folder"
            )


def _check_none_skipped(folder: Path, manifest: Manifest) -> None:
    if manifest.skipped:
        first = manifest.skipped[0]
        raise InputError(
            f"{folder} was made without {first.key} in {first.source}: {first.reason}; "
            "leave out --strict to take it as it is"
        )


def _refuse_bad(group: Sequence[Ready]) -> None:
    bad = next((item.skipped for item in group if item.skipped is not None), None)
    if bad is not None:
        raise InputError(f"{bad.key} in {bad.source}: {bad.reason}; mend it, or skip it by leaving out --strict")


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
