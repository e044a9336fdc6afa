"""timm's models as image towers: pre-trained ones by name, and any of them with a checkpoint of one's own.

Checkpoints are read as weights only, never as pickled code, and fit exactly: what is missing or left over is an
error. timm's own filters apply, so that it reads the original checkpoints of DINOv2, CLIP and others too.
"""

import difflib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import timm.data
import timm.models
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from littune.base.errors import InputError, first_line
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import Classifier, Trunk, split_tokens
from littune.towers.specs import Spec, without_checkpoint

_FITS = {"center": "short", "squash": "stretch"}
# What a recipe may tell timm: what littune itself tells it of the published checkpoints' ViTs. Among timm's other
# options are some that download or read files, and a recipe may come from anywhere.
_OPTIONS = frozenset({"act_layer", "depth", "embed_dim", "img_size", "no_embed_class", "num_heads", "patch_size"})


class TimmTrunk(Trunk):
    """A timm model; its recipe names the architecture, the number of classes and what else timm was told."""

    def __init__(self, model: nn.Module, name: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(model, _recipe(name, _num_classes(model), options))
        self.name = name
        self.options = options

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        model: Any = self.model
        features = model.forward_features(images)
        # In float32, so that averaging the places adds no rounding.
        with torch.autocast(images.device.type, enabled=False):
            pooled: Tensor = model.forward_head(features.float(), pre_logits=True)
        return pooled

    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
        model: Any = self.model
        features: Tensor = model.forward_features(images)
        if features.ndim == 4 and getattr(model, "output_fmt", "NCHW") == "NHWC":
            features = features.permute(0, 3, 1, 2)
        has_class_token = isinstance(getattr(model, "cls_token", None), Tensor)
        num_prefix = getattr(model, "num_prefix_tokens", int(has_class_token))
        return split_tokens(features, num_prefix=num_prefix, has_class_token=has_class_token)

    def head(self) -> list[nn.Module]:
        model: Any = self.model
        found = model.get_classifier()
        return [layer for layer in (found if isinstance(found, tuple) else (found,)) if isinstance(layer, nn.Module)]

    def classifier(self) -> Classifier | None:
        layers = self.head()
        if len(layers) != 1 or not isinstance(layers[0], nn.Linear | nn.Conv2d):
            return None
        weight, bias = layers[0].weight.detach().clone().flatten(1), layers[0].bias
        label_set = timm.data.infer_imagenet_subset(self.model) or ""
        return Classifier(weight=weight, bias=None if bias is None else bias.detach().clone(), label_set=label_set)

    def drop_head(self) -> None:
        model: Any = self.model
        model.reset_classifier(0)
        self.recipe = _recipe(self.name, 0, self.options)


def load_timm(spec: Spec) -> tuple[Trunk, Preprocess]:
    """Load ``timm:NAME`` with timm's pre-trained weights, or ``timm:NAME@CHECKPOINT`` with a file's.

    Raises:
        InputError: timm has no such model, its weights cannot be had, or the file's do not fit it.
    """
    check_architecture(spec.name, f"image tower {spec.text!r}")
    model = _pretrained(spec) if spec.checkpoint is None else _from_checkpoint(spec, Path(spec.checkpoint).expanduser())
    return TimmTrunk(model, spec.name), preprocess_of(model, spec.text)


def draw_timm(spec: Spec) -> tuple[Trunk, Preprocess]:
    """The architecture of ``timm:NAME`` with weights that timm draws for training from scratch, and no classifier.

    Raises:
        InputError: timm has no such model, or the spec has a checkpoint.
    """
    without_checkpoint(spec, what="image tower from scratch")
    check_architecture(spec.name, f"image tower {spec.text!r}")
    trunk = build_timm(_recipe(spec.name, 0))
    return trunk, preprocess_of(trunk.model, spec.text)


def build_timm(recipe: Mapping[str, Any]) -> Trunk:
    """The trunk of a recipe, its weights drawn.

    Raises:
        InputError: timm has no such model, or the recipe has options that littune gives none.
    """
    name, options = recipe["name"], recipe.get("options") or {}
    check_architecture(name, "the recipe of an image tower")
    strange = sorted(options.keys() - _OPTIONS)
    if strange:
        raise InputError(
            f"the recipe of an image tower has the options {', '.join(strange)} of timm's {name}, which littune never "
            "writes; take the run from where it was made"
        )
    return TimmTrunk(timm.create_model(name, num_classes=recipe["num_classes"], **options), name, options)


def check_architecture(name: str, what: str) -> None:
    """Check that a model is timm's own, whatever its tag: timm looks for others on a hub or in a folder.

    Raises:
        InputError: it is not; ``what`` named it.
    """
    architecture, _ = timm.models.split_model_name_tag(name)
    if timm.models.is_model(architecture):
        return
    close = difflib.get_close_matches(architecture, timm.models.list_models(), n=1)
    hint = f"did you mean timm:{close[0]}?" if close else "timm.list_models() names them"
    raise InputError(f"{what}: timm has no model {name!r}; {hint}")


def preprocess_of(model: nn.Module, spec: str) -> Preprocess:
    """The preprocessing that timm evaluates a model with.

    Raises:
        InputError: littune has no such preprocessing.
    """
    config = timm.data.resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    if channels != 3 or height != width or config["crop_mode"] not in _FITS:
        shape, mode = config["input_size"], config["crop_mode"]
        raise InputError(f"image tower {spec!r} sees inputs {shape} cropped by {mode!r}; littune has square RGB only")
    return Preprocess(
        size=height,
        resize=int(height / config["crop_pct"]),
        fit=_FITS[config["crop_mode"]],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _recipe(name: str, num_classes: int, options: Mapping[str, object] | None = None) -> dict[str, object]:
    recipe: dict[str, object] = {"kind": "timm", "name": name, "num_classes": num_classes}
    return recipe | {"options": dict(options)} if options else recipe


def _pretrained(spec: Spec) -> nn.Module:
    try:
        model: nn.Module = timm.create_model(spec.name, pretrained=True)
    except Exception as error:  # The hub's clients raise what they will.
        raise InputError(
            f"image tower {spec.text!r}: no pre-trained weights ({first_line(error)}); "
            f"download them where there is a network and write timm:{spec.name}@FILE"
        ) from error
    return model


def _from_checkpoint(spec: Spec, path: Path) -> nn.Module:
    if not path.is_file():
        raise InputError(f"image tower {spec.text!r}: the checkpoint {path} does not exist")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of pickles
            return _from_npz(spec.name, path) if path.suffix == ".npz" else _from_state_dict(spec.name, path)
    except (EOFError, SafetensorError) as error:
        raise InputError(f"image tower {spec.text!r}: {path} is cut short or damaged; download it again") from error
    except Exception as error:  # Of a file of unknown make; so do the readers of each kind.
        if any(isinstance(one, pickle.UnpicklingError) for one in (error, error.__cause__)):
            raise InputError(
                f"image tower {spec.text!r}: {path} holds no plain weights but a pickle, which may run code and is not "
                "loaded; where you trust it, save its state dict with torch.save or safetensors"
            ) from error
        raise InputError(
            f"image tower {spec.text!r}: {path} is no checkpoint of {spec.name} ({first_line(error)})"
        ) from error


def _from_npz(name: str, path: Path) -> nn.Module:
    """The original JAX checkpoints of ViT, MLP-Mixer and BiT."""
    model: Any = timm.create_model(name)
    trunk = TimmTrunk(model, name)
    before = trunk.classifier()
    model.load_pretrained(str(path))
    after = trunk.classifier()
    if before is not None and after is not None and torch.equal(before.weight, after.weight):
        # timm skips a classifier of another number of classes, and leaves random weights in its place.
        model.reset_classifier(0)
    return trunk.model


def _from_state_dict(name: str, path: Path) -> nn.Module:
    weights = timm.models.load_state_dict(str(path), weights_only=True)
    model: Any = timm.create_model(name)
    default = _num_classes(model)
    classifier = model.pretrained_cfg.get("classifier")
    found = weights.get(f"{classifier}.weight") if isinstance(classifier, str) else None
    # A classifier under another name is one that timm's filter knows, and of the usual number of classes.
    choices = [len(found)] if found is not None else [0, default]
    for num_classes in choices:
        overlay = {"state_dict": dict(weights), "num_classes": num_classes, "custom_load": False}
        try:
            model = timm.create_model(name, pretrained=True, num_classes=num_classes, pretrained_cfg_overlay=overlay)
        except RuntimeError as error:
            if num_classes == choices[-1]:
                raise RuntimeError(_misfit(error)) from error
        else:
            model.pretrained_cfg.pop("state_dict")
            loaded: nn.Module = model
            return loaded
    raise AssertionError("the last choice returns or raises")


def _num_classes(model: Any) -> int:
    num_classes: int = model.num_classes
    return num_classes


def _misfit(error: RuntimeError) -> str:
    """torch's list of misfits, shortened to its first."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(lines[:2])[:200]
