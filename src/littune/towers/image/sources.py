"""``load_image_tower``: from a spec, or from weights that were bundled with a run, to an image tower."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from littune.base.errors import InputError, MismatchError
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import BUNDLE_FORMAT, BUNDLE_VERSION, ImageTower, Trunk
from littune.towers.specs import Spec, parse_spec, without_checkpoint

_Made = tuple[Trunk, Preprocess]


def load_image_tower(
    spec: str,
    *,
    pooling: str = "own",
    device: str = "cpu",
    precision: str = "auto",
    weights: Path | None = None,
    from_scratch: bool = False,
) -> ImageTower:
    """Load a locked image tower.

    Args:
        spec: ``timm:NAME``, ``timm:NAME@CHECKPOINT`` (.safetensors, .pth, .bin or .npz), ``hf:NAME_OR_DIR``,
            ``open_clip:NAME[@CHECKPOINT]``, ``onnx:PATH.onnx`` (with a PATH.toml beside it), ``lit:PATH.npz``,
            ``package:efficientnet-lite0`` (…1, …2), or ``run:DIR`` for the image tower that a run carries.
        pooling: "own" (as the model itself pools), "cls", "mean" (of the last layer's patches or places) or
            "cls+mean".
        device: where it runs.
        precision: "float32", "bfloat16", or "auto" for bfloat16 where the hardware has it.
        weights: a file that ``ImageTower.save_weights`` wrote, to load instead of what the spec points to.
        from_scratch: draw the weights of the spec's architecture anew, from torch's random numbers, instead of loading
            them; the tower has no classifier then. Of a run, its tower's architecture and preprocessing are taken.

    Raises:
        InputError: the spec, the pooling, the device or the precision is unknown, or the weights cannot be had.
        MissingExtraError: the tower's package is not installed.
        MismatchError: ``weights`` are those of another spec, or the run's tower pools in another way.
    """
    trunk, preprocess = _trunk(spec, pooling, weights, from_scratch)
    return ImageTower(spec=spec, trunk=trunk, preprocess=preprocess, pooling=pooling).to(device, precision)


def names_image_tower(spec: str) -> bool:
    """Whether ``spec`` is of a kind that ``load_image_tower`` loads, and no name of a module of the user's."""
    kind, colon, _ = spec.partition(":")
    return bool(colon) and kind in (*_LOADERS, "run")


def _trunk(spec: str, pooling: str, weights: Path | None, from_scratch: bool) -> _Made:
    what = "image tower from scratch" if from_scratch else "image tower"
    sources = _DRAWERS if from_scratch else _LOADERS
    parsed = parse_spec(spec, kinds=(*sources, "run"), what=what)
    if weights is not None:
        assert not from_scratch, "weights are loaded or drawn"
        return _unbundled(weights, spec)
    if parsed.kind == "run":
        return _of_run(parsed, pooling, from_scratch=from_scratch)
    return sources[parsed.kind](parsed)


# Each imports its library when it is needed: the command line must not wait for the others.
def _load_timm(spec: Spec) -> _Made:
    from littune.towers.image.from_timm import load_timm

    return load_timm(spec)


def _load_hf(spec: Spec) -> _Made:
    from littune.towers.image.from_hf import load_hf

    return load_hf(spec)


def _load_lit(spec: Spec) -> _Made:
    from littune.towers.image.from_lit import load_lit

    return load_lit(spec)


def _load_onnx(spec: Spec) -> _Made:
    from littune.towers.image.from_onnx import load_onnx

    return load_onnx(spec)


def _load_open_clip(spec: Spec) -> _Made:
    from littune.towers.image.from_open_clip import load_open_clip

    return load_open_clip(spec)


def _load_package(spec: Spec) -> _Made:
    from littune.towers.image.from_packages import load_package

    return load_package(spec)


def _draw_timm(spec: Spec) -> _Made:
    from littune.towers.image.from_timm import draw_timm

    return draw_timm(spec)


def _draw_hf(spec: Spec) -> _Made:
    from littune.towers.image.from_hf import draw_hf

    return draw_hf(spec)


def _draw_open_clip(spec: Spec) -> _Made:
    from littune.towers.image.from_open_clip import draw_open_clip

    return draw_open_clip(spec)


def _draw_package(spec: Spec) -> _Made:
    from littune.towers.image.from_packages import draw_package

    return draw_package(spec)


def _build_timm(recipe: Mapping[str, Any]) -> Trunk:
    from littune.towers.image.from_timm import build_timm

    return build_timm(recipe)


def _build_hf(recipe: Mapping[str, Any]) -> Trunk:
    from littune.towers.image.from_hf import build_hf

    return build_hf(recipe)


def _build_open_clip(recipe: Mapping[str, Any]) -> Trunk:
    from littune.towers.image.from_open_clip import build_open_clip

    return build_open_clip(recipe)


_LOADERS: dict[str, Callable[[Spec], _Made]] = {
    "hf": _load_hf,
    "lit": _load_lit,
    "onnx": _load_onnx,
    "open_clip": _load_open_clip,
    "package": _load_package,
    "timm": _load_timm,
}
_DRAWERS: dict[str, Callable[[Spec], _Made]] = {
    "hf": _draw_hf,
    "open_clip": _draw_open_clip,
    "package": _draw_package,
    "timm": _draw_timm,
}
_BUILDERS: dict[str, Callable[[Mapping[str, Any]], Trunk]] = {
    "hf": _build_hf,
    "open_clip": _build_open_clip,
    "timm": _build_timm,
}


def _of_run(spec: Spec, pooling: str, *, from_scratch: bool) -> _Made:
    """The image tower that the folder of a run carries, whatever spec it had there; or one like it, drawn anew."""
    without_checkpoint(spec, what="image tower")
    path = Path(spec.name).expanduser() / "image_tower.safetensors"
    if not path.is_file():
        raise InputError(
            f"image tower {spec.text!r}: no {path.name} is in {spec.name}; a run carries its image tower where that "
            "is trained (--locking U… or u…) or with --bundle"
        )
    about, tensors = _read_bundle(path)
    if about["pooling"] != pooling:
        raise MismatchError(
            f"image tower {spec.text!r} belongs to a run that pools with {about['pooling']}, not {pooling}; "
            f"write --pooling {about['pooling']}"
        )
    return _built(about, None if from_scratch else tensors)


def _unbundled(path: Path, spec: str) -> _Made:
    """The tower that a file carries, which must be that of ``spec``."""
    about, tensors = _read_bundle(path)
    if about["spec"] != spec:
        raise MismatchError(f"{path} holds the image tower {about['spec']!r}, not {spec!r}")
    return _built(about, tensors)


def _read_bundle(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """What ``ImageTower.save_weights`` wrote: what the tower is, and its weights."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except Exception as error:  # safetensors has an error of its own that derives from none of Python's.
        raise InputError(f"{path} holds no weights that can be read: {error}") from error
    if about.get("format") != BUNDLE_FORMAT or about.get("version") != BUNDLE_VERSION:
        raise InputError(f"{path} is not an image tower that this littune wrote")
    return about, tensors


def _built(about: Mapping[str, str], tensors: Mapping[str, Tensor] | None) -> _Made:
    recipe = json.loads(about["recipe"])
    trunk = _BUILDERS[recipe["kind"]](recipe)
    if tensors is not None:
        trunk.model.load_state_dict(tensors)
    return trunk, Preprocess.from_dict(json.loads(about["preprocess"]))
