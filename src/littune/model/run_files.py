"""What a run's folder says of its model, read before the model is built."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from safetensors.torch import load_file
from torch import Tensor

from littune.base.errors import InputError
from littune.base.files import read_json
from littune.config import Heads
from littune.model.reference import ImageReference
from littune.towers.image.tower import Identity

FORMAT = "littune-run"
VERSION = 2

COST = "cost.json"
"""What training took; beside the model, as it differs from run to run."""


def is_run(path: Path) -> bool:
    """Whether ``path`` is a finished run folder."""
    return (path / "model.json").is_file()


def read_about(path: Path) -> dict[str, object]:
    """What ``model.json`` says.

    Raises:
        InputError: there is no such folder, or it is no run, an unfinished one, or one of another version.
    """
    if not path.exists():
        raise InputError(f"the run {path} does not exist")
    if not is_run(path):
        unfinished = (path / "config.toml").is_file()
        what = "a run that is not finished; train it with the same command again" if unfinished else "no littune run"
        raise InputError(f"{path} is {what}")
    about = read_json(path / "model.json")
    if about.get("format") != FORMAT or about.get("version") != VERSION:
        raise InputError(
            f"{path} is {about.get('format')!r} version {about.get('version')!r}; this littune reads {VERSION}"
        )
    return about


def image_reference(about: dict[str, object], path: Path) -> ImageReference:
    """The image tower that ``about`` names."""
    image = about["image"]
    assert isinstance(image, dict)
    return ImageReference(
        spec=image["spec"],
        pooling=image["pooling"],
        # Of a run on foreign stores alone, the tower may be unknown.
        identity=Identity.from_dict(image["identity"]) if image["identity"] else None,
        weights=path / "image_tower.safetensors" if image["bundled"] else None,
    )


class Shape(TypedDict):
    """What the weights of a run say of how its model is built."""

    center: Tensor
    heads: Heads
    out_dim: int | None
    bias: float | None


def shape_of(tensors: Mapping[str, Tensor], path: Path) -> Shape:
    """How the model of these weights is built.

    Raises:
        InputError: they are not the weights of a run.
    """
    with_text, with_image = "text_head.weight" in tensors, "image_head.weight" in tensors
    heads: Heads = "none"
    if with_text or with_image:
        heads = "both" if with_text and with_image else "text" if with_text else "image"
    known = {"center", "log_temperature", "bias"} | {
        f"{side}_head.{part}" for side in ("text", "image") for part in ("weight", "bias")
    }
    needed = {"center", "log_temperature"}
    if not needed <= tensors.keys() <= known:
        raise InputError(f"{path / 'model.safetensors'} holds {sorted(tensors)}: not the weights of a littune run")
    return Shape(
        center=tensors["center"],
        heads=heads,
        out_dim=tensors["text_head.weight"].shape[0] if heads == "both" else None,
        bias=float(tensors["bias"]) if "bias" in tensors else None,
    )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(f"{path} cannot be read ({error}); the run is damaged") from error
