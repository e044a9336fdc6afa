"""``load_image_tower``: from a spec, or from weights that were bundled with a run, to an image tower."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from littune.base.errors import InputError, MismatchError
from littune.towers.image import BUNDLE_FORMAT, ImageTower, Trunk
from littune.towers.preprocess import Preprocess
from littune.towers.specs import Spec, parse_spec


def load_image_tower(
    spec: str, *, pooling: str = "own", device: str = "cpu", precision: str = "auto", weights: Path | None = None
) -> ImageTower:
    """Load a locked image tower.

    Args:
        spec: ``timm:NAME``, ``timm:NAME@CHECKPOINT`` (.safetensors, .pth, .bin or .npz), ``hf:NAME_OR_DIR`` or
            ``package:efficientnet-lite0`` (…1, …2).
        pooling: "own" (as the model itself pools), "cls", "mean" (of the last layer's patches or places) or
            "cls+mean".
        device: where it runs.
        precision: "float32", "bfloat16", or "auto" for bfloat16 where the hardware has it.
        weights: a file that ``ImageTower.save_weights`` wrote, to load instead of what the spec points to.

    Raises:
        InputError: the spec, the pooling, the device or the precision is unknown, or the weights cannot be had.
        MissingExtraError: the tower's package is not installed.
        MismatchError: ``weights`` are those of another spec.
    """
    parsed = parse_spec(spec, kinds=_LOADERS, what="image tower")
    trunk, preprocess = _LOADERS[parsed.kind](parsed) if weights is None else _unbundled(spec, weights)
    return ImageTower(spec=spec, trunk=trunk, preprocess=preprocess, pooling=pooling).to(device, precision)


# Each imports its library when it is needed: the command line must not wait for the others.
def _load_timm(spec: Spec) -> tuple[Trunk, Preprocess]:
    from littune.towers.image_timm import load_timm

    return load_timm(spec)


def _load_hf(spec: Spec) -> tuple[Trunk, Preprocess]:
    from littune.towers.image_hf import load_hf

    return load_hf(spec)


def _load_package(spec: Spec) -> tuple[Trunk, Preprocess]:
    from littune.towers.image_packages import load_package

    return load_package(spec)


def _build_timm(recipe: Mapping[str, Any]) -> Trunk:
    from littune.towers.image_timm import build_timm

    return build_timm(recipe)


def _build_hf(recipe: Mapping[str, Any]) -> Trunk:
    from littune.towers.image_hf import build_hf

    return build_hf(recipe)


_LOADERS: dict[str, Callable[[Spec], tuple[Trunk, Preprocess]]] = {
    "hf": _load_hf,
    "package": _load_package,
    "timm": _load_timm,
}
_BUILDERS: dict[str, Callable[[Mapping[str, Any]], Trunk]] = {"hf": _build_hf, "timm": _build_timm}


def _unbundled(spec: str, path: Path) -> tuple[Trunk, Preprocess]:
    """The trunk and preprocessing that ``ImageTower.save_weights`` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    except Exception as error:  # safetensors has an error of its own that derives from none of Python's.
        raise InputError(f"{path} holds no weights that can be read: {error}") from error
    if about.get("format") != BUNDLE_FORMAT or about.get("version") != "1":
        raise InputError(f"{path} is not an image tower that this littune wrote")
    if about["spec"] != spec:
        raise MismatchError(f"{path} holds the image tower {about['spec']!r}, not {spec!r}")
    recipe = json.loads(about["recipe"])
    trunk = _BUILDERS[recipe["kind"]](recipe)
    trunk.model.load_state_dict(tensors)
    return trunk, Preprocess.from_dict(json.loads(about["preprocess"]))
