"""Models, stores and towers in the formats of others: one file a target.

A target writes into a folder aside, which takes its name when all of it is there.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from littune.apps.card import write_export_card
from littune.apps.export.base import Exported as Exported
from littune.apps.export.base import ExportOptions as ExportOptions
from littune.base.errors import InputError
from littune.base.files import explained_os_errors
from littune.base.progress import log
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore, is_store
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.specs import is_hf_folder

Exportable = LiT | EmbeddingStore | ImageTower
Write = Callable[[Any, Path, ExportOptions], Exported]
"""Writes what is exported into a folder."""

_TOWER_KINDS = ("onnx:", "open_clip:", "package:", "run:", "timm:")


def export(
    what: str | Path | Exportable, *, to: str, out: str | Path, options: ExportOptions | None = None
) -> Exported:
    """Write a model, a store or an image tower in another format.

    Args:
        what: a run (a folder, ``hf:NAME`` on the hub, ``lit:PATH.npz``), a store, an image tower's spec (of ``hf:``
            only a folder that is here), or one of them that is loaded already.
        to: a model's "littune", "npz", "onnx", "open_clip", "sentence-transformers" or "transformers"; a store's
            "lance", "npy" or "parquet"; an image tower's "onnx".
        out: the folder to write, which must not be there yet, or be empty.
        options: what else is asked.

    Raises:
        InputError: there is no such thing, no such target for it, or ``out`` is taken.
        LittuneError: the target cannot hold it, or cannot be written.
        MissingExtraError: the target's library is not installed.
    """
    out, options = Path(out).resolve(), options or ExportOptions()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; export into another folder")
    kind = _kind(what)
    write = _writer(kind, to, options)
    loaded = _opened(str(what), kind, options) if isinstance(what, str | Path) else what
    log(f"exporting to {to}; where a tower is traced, that takes a minute" if to == "onnx" else f"exporting to {to}")
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    with explained_os_errors(out):
        try:
            aside.mkdir(parents=True)
            exported = write(loaded, aside, options)
            write_export_card(aside, loaded, to=to, how_to_load=exported.how_to_load, notes=exported.notes)
            if out.exists():
                out.rmdir()
            aside.rename(out)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return exported


def _kind(what: str | Path | Exportable) -> str:
    """What is to be exported, before it is loaded."""
    if isinstance(what, EmbeddingStore) or (isinstance(what, str | Path) and is_store(Path(what))):
        return "a store"
    spec = str(what) if isinstance(what, str | Path) else ""
    is_tower = spec.startswith(_TOWER_KINDS) or is_hf_folder(spec)
    return "an image tower" if isinstance(what, ImageTower) or is_tower else "a run"


def _opened(what: str, kind: str, options: ExportOptions) -> Exportable:
    if kind == "a store":
        return EmbeddingStore.open(what, allow_foreign=True)
    load = load_image_tower if kind == "an image tower" else LiT.load
    return load(what, device=options.device, precision=options.precision)


def _writer(kind: str, to: str, options: ExportOptions) -> Write:
    targets = _TARGETS[kind]
    if to not in targets:
        raise InputError(f"{kind} cannot be exported to {to!r}; choose one of {', '.join(targets)}")
    if options.int8 and to != "onnx":
        raise InputError(f"int8 goes with --to onnx, not with {to}")
    if options.on and not options.int8:
        raise InputError("--on goes with --int8: it names the sets on which that is measured")
    return targets[to]()


# Each imports its library when it is asked for, so that what is missing is noticed before anything is loaded.
def _littune() -> Write:
    from littune.apps.export.littune import to_littune

    return to_littune


def _npz() -> Write:
    from littune.apps.export.npz import to_npz

    return to_npz


def _onnx() -> Write:
    from littune.apps.export.onnx import to_onnx

    return to_onnx


def _open_clip() -> Write:
    from littune.apps.export.open_clip import to_open_clip

    return to_open_clip


def _sentence_transformers() -> Write:
    from littune.apps.export.sentence_transformers import to_sentence_transformers

    return to_sentence_transformers


def _transformers() -> Write:
    from littune.apps.export.transformers import to_transformers

    return to_transformers


def _store_to_lance() -> Write:
    from littune.apps.export.stores import to_lance

    return lambda store, out, options: to_lance(store, out)


def _store_to_npy() -> Write:
    from littune.apps.export.stores import to_npy

    return lambda store, out, options: to_npy(store, out)


def _store_to_parquet() -> Write:
    from littune.apps.export.stores import to_parquet

    return lambda store, out, options: to_parquet(store, out)


def _tower_to_onnx() -> Write:
    from littune.apps.export.onnx import tower_to_onnx

    return tower_to_onnx


_TARGETS: dict[str, dict[str, Callable[[], Write]]] = {
    "a run": {
        "littune": _littune,
        "npz": _npz,
        "onnx": _onnx,
        "open_clip": _open_clip,
        "sentence-transformers": _sentence_transformers,
        "transformers": _transformers,
    },
    "a store": {"lance": _store_to_lance, "npy": _store_to_npy, "parquet": _store_to_parquet},
    "an image tower": {"onnx": _tower_to_onnx},
}
