"""Image towers for open_clip: its own, and timm's, which it wraps. The centre and the head become the projection."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from littune.apps.export.open_clip.part import Affine, Part, shift_before
from littune.base.errors import InputError
from littune.model.lit import LiT
from littune.towers.image.from_open_clip import OpenClipTrunk
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.tower import ImageTower

# After littune.towers.open_clip, which says what to install.
from open_clip.modified_resnet import ModifiedResNet  # isort: skip
from open_clip.timm_model import TimmModel  # isort: skip
from open_clip.transformer import VisionTransformer  # isort: skip

# littune's poolings, and what timm is asked for.
_TIMM_POOLS = {"own": "", "cls": "token", "mean": "avg"}
_Folded = tuple[dict[str, Any], dict[str, Tensor]]


def image_part(model: LiT) -> Part:
    """The model's image tower with its centre and head.

    Raises:
        InputError: open_clip has no such tower.
    """
    tower = model.image_tower
    # Copied where the kind is known: an ONNX graph, for one, cannot be.
    if isinstance(tower.trunk, TimmTrunk):
        return _timm_part(copy.deepcopy(tower.trunk).cpu(), tower, _affine(model) or _identity(tower.dim))
    if isinstance(tower.trunk, OpenClipTrunk):
        return _open_clip_part(copy.deepcopy(tower.trunk).cpu(), tower, _affine(model))
    raise InputError(
        f"open_clip has no image tower like {tower.spec}: it has its own (open_clip:…) and timm's (timm:…)"
    )


@torch.no_grad()
def _affine(model: LiT) -> Affine | None:
    """What becomes of an embedding: the centre is subtracted, then comes the head. None for nothing."""
    center = model.center.cpu()
    if model.image_head is not None:
        return Affine.of_head(model.image_head).after(torch.eye(len(center)), -center)
    return Affine(weight=torch.eye(len(center)), bias=-center) if center.any() else None


def _identity(dim: int) -> Affine:
    return Affine(weight=torch.eye(dim), bias=torch.zeros(dim))


def _timm_part(trunk: TimmTrunk, tower: ImageTower, affine: Affine) -> Part:
    if tower.pooling not in _TIMM_POOLS:
        raise InputError(f"open_clip has no pooling {tower.pooling!r}; it pools by {', '.join(_TIMM_POOLS)}")
    if trunk.options:
        options = ", ".join(f"{name}={value}" for name, value in trunk.options.items())
        raise InputError(f"{tower.spec} is timm's {trunk.name} with {options}, which open_clip cannot ask timm for")
    trunk.drop_head()
    num_features: Any = trunk.model.num_features
    if num_features != tower.dim:
        raise InputError(
            f"open_clip projects timm's {trunk.name} from {num_features} dimensions, and {tower.spec} gives {tower.dim}"
        )
    settings = {
        "timm_model_name": trunk.name,
        "timm_model_pretrained": False,
        "timm_pool": _TIMM_POOLS[tower.pooling],
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": tower.preprocess.size,
    }
    weights = {f"trunk.{name}": value for name, value in trunk.model.state_dict().items()}
    weights |= {"head.proj.weight": affine.weight, "head.proj.bias": affine.bias}
    return Part(settings=settings, weights=weights)


def _open_clip_part(trunk: OpenClipTrunk, tower: ImageTower, affine: Affine | None) -> Part:
    if tower.pooling != "own":
        raise InputError(f"open_clip pools {tower.spec} in its own way alone, and this run by {tower.pooling!r}")
    assert trunk.recipe is not None
    recipe: Any = trunk.recipe
    settings = {**recipe["vision_cfg"], "image_size": tower.preprocess.size, "output_tokens": False}
    weights = trunk.model.state_dict()
    if affine is not None:
        settings, weights = _fold_of(trunk.model)(settings, weights, affine, tower.spec)
    # ResNets and timm's models have one activation, whatever the setting.
    quick_gelu = recipe["quick_gelu"] if isinstance(trunk.model, VisionTransformer) else None
    return Part(settings=settings, weights=weights, quick_gelu=quick_gelu)


def _fold_of(model: nn.Module) -> Callable[[dict[str, Any], dict[str, Tensor], Affine, str], _Folded]:
    return next(fold for kind, fold in _FOLDS.items() if isinstance(model, kind))


def _into_vit(settings: dict[str, Any], weights: dict[str, Tensor], affine: Affine, spec: str) -> _Folded:
    """The projection has no bias: what must be added goes into the bias of the norm before it."""
    after = affine.after(weights["proj"].T, None)
    if settings.get("attentional_pool") and after.weight.shape[0] != after.weight.shape[1]:
        raise InputError(
            f"open_clip pools {spec} by attention into {after.weight.shape[1]} dimensions, and the image head makes "
            f"{after.weight.shape[0]} of them; train with --heads text"
        )
    shift = shift_before(after.weight, after.bias)
    if shift is None:
        raise InputError(
            f"open_clip's projection of {spec} has no bias, and {after.weight.shape[1]} dimensions before it have no "
            f"room for one of {after.weight.shape[0]}; train with --center none --heads text"
        )
    return settings, {**weights, "proj": after.weight.T, "ln_post.bias": weights["ln_post.bias"] + shift}


def _into_resnet(settings: dict[str, Any], weights: dict[str, Tensor], affine: Affine, spec: str) -> _Folded:
    return settings, _into_linear(weights, "attnpool.c_proj", affine)


def _into_timm(settings: dict[str, Any], weights: dict[str, Tensor], affine: Affine, spec: str) -> _Folded:
    projection, pool = settings.get("timm_proj", "linear"), settings.get("timm_pool", "avg")
    settings = {**settings, "timm_proj_bias": True}
    if pool in ("abs_attn", "rot_attn") or projection not in ("linear", "mlp", "none"):
        raise InputError(
            f"{spec} ends in timm_pool {pool!r} and timm_proj {projection!r}: no room for a centre or head"
        )
    if projection == "linear":
        return settings, _into_linear(weights, "head.proj", affine)
    if projection == "mlp":
        return settings, _into_linear(weights, "head.mlp.fc2", affine)
    return {**settings, "timm_proj": "linear"}, {
        **weights,
        "head.proj.weight": affine.weight,
        "head.proj.bias": affine.bias,
    }


def _into_linear(weights: dict[str, Tensor], name: str, affine: Affine) -> dict[str, Tensor]:
    after = affine.after(weights[f"{name}.weight"], weights.get(f"{name}.bias"))
    return {**weights, f"{name}.weight": after.weight, f"{name}.bias": after.bias}


_FOLDS: dict[type[nn.Module], Callable[[dict[str, Any], dict[str, Tensor], Affine, str], _Folded]] = {
    ModifiedResNet: _into_resnet,
    TimmModel: _into_timm,
    VisionTransformer: _into_vit,
}
