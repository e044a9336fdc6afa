"""Say what a path or a spec is: a run, a store, a tower, pairs, or the known evaluation sets."""

from collections.abc import Mapping
from pathlib import Path

from littune.base.errors import InputError, LittuneError
from littune.evaluation.sets.registry import KNOWN_SETS
from littune.model.lit import LiT
from littune.model.run_files import is_run
from littune.pairs import open_pairs
from littune.store.store import EmbeddingStore, is_store
from littune.towers.image.sources import load_image_tower
from littune.towers.specs import is_hf_folder
from littune.towers.text.sources import load_text_tower

_IMAGE_ONLY = ("onnx:", "run:", "timm:")
_EITHER_TOWER = ("open_clip:", "package:")

About = dict[str, object]


def describe(what: str) -> About:
    """What ``what`` is, as names and JSON values; ``kind`` says which of run, store, tower, pairs or known sets.

    Raises:
        InputError: it is none of them.
    """
    path = Path(what)
    if what == "sets" and not path.exists():
        return _known_sets()
    if is_run(path) or what.startswith("lit:"):
        return _run(what)
    if is_store(path):
        return _store(path)
    if what.startswith(_IMAGE_ONLY):
        return _image_tower(what)
    if what.startswith(_EITHER_TOWER) or is_hf_folder(what):
        return _tower(what)
    return _pairs(what)


def to_text(about: Mapping[str, object], indent: str = "") -> str:
    """What ``describe`` says, a line a name, what is nested indented; what is empty is left out."""
    lines = []
    for name, value in about.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{name}:", to_text(value, indent + "  ")] if value else []
        elif isinstance(value, list):
            lines += [f"{indent}{name}: {', '.join(map(str, value))}"] if value else []
        elif value != "":
            lines.append(f"{indent}{name}: {_word(value)}")
    return "\n".join(lines)


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def _known_sets() -> About:
    return {
        "kind": "known evaluation sets, to be named as NAME:PATH",
        **{
            name: {
                "title": known.title,
                "task": known.task.replace("_", "-"),
                "from": known.origin,
                "layout": known.layout,
                "class names": known.classnames,
                "templates": known.templates,
                "headline": known.headline,
            }
            for name, known in KNOWN_SETS.items()
        },
    }


def _run(spec: str) -> About:
    model = LiT.load(spec)
    return {
        "kind": "run" if model.folder else "published checkpoint",
        "path": spec,
        "image tower": model.reference.spec,
        "text tower": model.text.spec,
        "max tokens": model.text.max_tokens,
        "dimensions": model.dim,
        "logit scale": round(model.logit_scale, 3),
        "identity": model.reference.identity.to_dict() if model.reference.identity else None,
        "settings": str(model.folder / "config.toml") if model.folder else "",
        "carries the image tower": model.reference.weights is not None,
    }


def _store(path: Path) -> About:
    store = EmbeddingStore.open(path, allow_foreign=True)
    return {
        "kind": "store",
        "path": str(path),
        "holds": store.kind,
        "image tower": store.manifest.settings.tower if store.manifest else None,
        "rows": store.num_rows,
        "dimensions": store.dim,
        "complete": store.complete,
        "skipped": len(store.manifest.skipped) if store.manifest else 0,
        "classes": len(store.classnames) if store.classnames else 0,
        "identity": store.identity.to_dict() if store.identity else None,
        "provenance": dict(store.manifest.provenance) if store.manifest else {},
    }


def _image_tower(spec: str) -> About:
    tower = load_image_tower(spec)
    return {
        "kind": "image tower",
        "spec": spec,
        "dimensions": tower.dim,
        "pooling": tower.pooling,
        "parameters": sum(parameter.numel() for parameter in tower.module.parameters()),
        "preprocessing": tower.preprocess.to_dict(),
        "classes": len(tower.classifier.weight) if tower.classifier else 0,
        "identity": tower.identity.to_dict(),
    }


def _text_tower(spec: str) -> About:
    tower = load_text_tower(spec)
    return {
        "kind": "text tower",
        "spec": spec,
        "dimensions": tower.dim,
        "pooling": tower.pooling,
        "parameters": sum(parameter.numel() for parameter in tower.parameters()),
    }


def _tower(spec: str) -> About:
    try:
        return _image_tower(spec)
    except LittuneError as image_error:
        try:
            return _text_tower(spec)
        except LittuneError as text_error:
            raise InputError(
                f"{spec} is no tower: as an image tower, {image_error}; as a text tower, {text_error}"
            ) from text_error


def _pairs(spec: str) -> About:
    source = open_pairs(spec)
    return {
        "kind": "labelled images" if source.classnames else "pairs",
        "spec": spec,
        "lie in": source.kind,
        "parts": [part.name for part in source.parts()],
        "rows": source.num_samples,
        "classes": list(source.classnames or ()),
        "templates": list(source.templates or ()),
    }
