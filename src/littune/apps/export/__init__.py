"""Models, stores and towers in the formats of others: one file a target.

A target writes into a folder aside, which takes its name when all of it is there.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from littune.apps.card import write_export_card
from littune.apps.export.base import Exported as Exported
from littune.apps.export.base import ExportOptions as ExportOptions
from littune.base.errors import InputError
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore, is_store
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.specs import is_hf_folder

Exportable = LiT | EmbeddingStore | ImageTower

_T = TypeVar("_T")
_TOWER_KINDS = ("onnx:", "open_clip:", "package:", "run:", "timm:")


def export(
    what: str | Path | Exportable, *, to: str, out: str | Path, options: ExportOptions | None = None
) -> Exported:
    """Write a model, a store or an image tower in another format.

    Args:
        what: a run (a folder, ``hf:NAME`` on the hub, ``lit:PATH.npz``), a store, an image tower's spec, or one of them
            that is loaded already.
        to: a model's "littune", "npz", "onnx", "open_clip", "sentence-transformers" or "transformers"; a store's
            "lance", "npy" or "parquet"; an image tower's "onnx".
        out: the folder to write, which must not be there yet, or be empty.
        options: what else is asked.

    Raises:
        InputError: there is no such thing, no such target for it, or ``out`` is taken.
        LittuneError: the target cannot hold it, or cannot be written.
        MissingExtraError: the target's library is not installed.
    """
    out, options = Path(out), options or ExportOptions()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already; export into another folder")
    if isinstance(what, str | Path):
        what = _opened(str(what), options)
    write = _writer(what, to, options)
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        exported = write(aside)
        write_export_card(aside, what, to=to, how_to_load=exported.how_to_load, notes=exported.notes)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return exported


def _opened(what: str, options: ExportOptions) -> Exportable:
    if is_store(Path(what)):
        return EmbeddingStore.open(what, allow_foreign=True)
    if what.startswith(_TOWER_KINDS) or is_hf_folder(what):
        return load_image_tower(what, device=options.device, precision=options.precision)
    return LiT.load(what, device=options.device, precision=options.precision)


def _writer(what: Exportable, to: str, options: ExportOptions) -> Callable[[Path], Exported]:
    if isinstance(what, EmbeddingStore):
        store, write_store = what, _target(STORE_TARGETS, to, "a store", options)
        return lambda out: write_store(store, out)
    if isinstance(what, ImageTower):
        tower, write_tower = what, _target(TOWER_TARGETS, to, "an image tower", options)
        return lambda out: write_tower(tower, out, options)
    model, write_model = what, _target(MODEL_TARGETS, to, "a run", options)
    return lambda out: write_model(model, out, options)


def _target(targets: Mapping[str, _T], to: str, what: str, options: ExportOptions) -> _T:
    if to not in targets:
        raise InputError(f"{what} cannot be exported to {to!r}; choose one of {', '.join(targets)}")
    if options.int8 and to != "onnx":
        raise InputError(f"int8 goes with --to onnx, not with {to}")
    return targets[to]


# Each imports its library when it is needed.
def _to_littune(model: LiT, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.littune import to_littune

    return to_littune(model, out, options)


def _to_npz(model: LiT, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.npz import to_npz

    return to_npz(model, out, options)


def _to_onnx(model: LiT, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.onnx import to_onnx

    return to_onnx(model, out, options)


def _to_open_clip(model: LiT, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.open_clip import to_open_clip

    return to_open_clip(model, out, options)


def _to_sentence_transformers(model: LiT, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.sentence_transformers import to_sentence_transformers

    return to_sentence_transformers(model, out, options)


def _to_transformers(model: LiT, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.transformers import to_transformers

    return to_transformers(model, out, options)


def _store_to_lance(store: EmbeddingStore, out: Path) -> Exported:
    from littune.apps.export.stores import to_lance

    return to_lance(store, out)


def _store_to_npy(store: EmbeddingStore, out: Path) -> Exported:
    from littune.apps.export.stores import to_npy

    return to_npy(store, out)


def _store_to_parquet(store: EmbeddingStore, out: Path) -> Exported:
    from littune.apps.export.stores import to_parquet

    return to_parquet(store, out)


def _tower_to_onnx(tower: ImageTower, out: Path, options: ExportOptions) -> Exported:
    from littune.apps.export.onnx import tower_to_onnx

    return tower_to_onnx(tower, out, options)


MODEL_TARGETS: dict[str, Callable[[LiT, Path, ExportOptions], Exported]] = {
    "littune": _to_littune,
    "npz": _to_npz,
    "onnx": _to_onnx,
    "open_clip": _to_open_clip,
    "sentence-transformers": _to_sentence_transformers,
    "transformers": _to_transformers,
}
STORE_TARGETS: dict[str, Callable[[EmbeddingStore, Path], Exported]] = {
    "lance": _store_to_lance,
    "npy": _store_to_npy,
    "parquet": _store_to_parquet,
}
TOWER_TARGETS: dict[str, Callable[[ImageTower, Path, ExportOptions], Exported]] = {"onnx": _tower_to_onnx}
