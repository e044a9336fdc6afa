"""transformers' image models as image towers: ViT, DINOv2, DINOv3, and the vision towers of CLIP and SigLIP.

A folder of a dual model (CLIP, SigLIP) gives its vision tower. Pooling "own" is the model's ``pooler_output``, which
for CLIP comes before the projection into the shared space. A ViT saved without its pooler, as the classifiers are,
pools by its class token: transformers would put random weights in the pooler's place.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import transformers
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor

from littune.base.errors import InputError
from littune.towers.hub import explained
from littune.towers.image.preprocess import Channels, Preprocess
from littune.towers.image.tower import Trunk, split_tokens
from littune.towers.specs import Spec, without_checkpoint


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    model_class: str
    has_class_token: bool = True


# By the model_type of config.json.
_KINDS = {
    "clip": _Kind(model_class="CLIPVisionModel"),
    "clip_vision_model": _Kind(model_class="CLIPVisionModel"),
    "dinov2": _Kind(model_class="Dinov2Model"),
    "dinov2_with_registers": _Kind(model_class="Dinov2WithRegistersModel"),
    "dinov3_vit": _Kind(model_class="DINOv3ViTModel"),
    "siglip": _Kind(model_class="SiglipVisionModel", has_class_token=False),
    "siglip_vision_model": _Kind(model_class="SiglipVisionModel", has_class_token=False),
    "vit": _Kind(model_class="ViTModel"),
}


class HFTrunk(Trunk):
    """A vision model of transformers; its recipe is its configuration."""

    def __init__(self, model: nn.Module, kind: str, *, has_pooler: bool) -> None:
        config: Any = model.config
        self_described = {**config.to_dict(), "model_type": config.model_type}
        super().__init__(model, {"kind": "hf", "model": kind, "config": self_described, "has_pooler": has_pooler})
        self.has_class_token = _KINDS[kind].has_class_token
        self.num_prefix = int(self.has_class_token) + self_described.get("num_register_tokens", 0)

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        output = self.model(pixel_values=images)
        if output.pooler_output is not None:
            return output.pooler_output  # type: ignore[no-any-return]
        if not self.has_class_token:
            raise ValueError("it has no pooler; choose pooling mean")
        return output.last_hidden_state[:, 0]  # type: ignore[no-any-return]

    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
        output: Tensor = self.model(pixel_values=images).last_hidden_state
        return split_tokens(output, num_prefix=self.num_prefix, has_class_token=self.has_class_token)


def load_hf(spec: Spec) -> tuple[Trunk, Preprocess]:
    """Load ``hf:NAME_OR_DIR``, with its image processor as preprocessing.

    Raises:
        InputError: there is no such folder or model, it is no vision model that littune knows, its weights are not
            whole, or its image processor does what littune's preprocessing cannot.
    """
    without_checkpoint(spec, what="image tower")
    with explained(spec.name):
        kind = AutoConfig.from_pretrained(spec.name).model_type
        model, found = _model_class(kind, spec).from_pretrained(spec.name, output_loading_info=True)
        processor = AutoImageProcessor.from_pretrained(spec.name)
    missing = sorted(found["missing_keys"])
    has_pooler = not any(name.startswith("pooler.") for name in missing)
    lacking = [name for name in missing if not name.startswith("pooler.")]
    if lacking:
        raise InputError(f"image tower {spec.text!r} lacks {len(lacking)} of its weights, such as {lacking[0]}")
    if not has_pooler:
        model.pooler = None
    return HFTrunk(model.float(), kind, has_pooler=has_pooler), preprocess_of(processor.to_dict(), spec.text)


def draw_hf(spec: Spec) -> tuple[Trunk, Preprocess]:
    """The architecture of ``hf:NAME_OR_DIR`` with weights drawn anew; only its configurations are read.

    Raises:
        InputError: there is no such folder or model, it is no vision model that littune knows, or its image processor
            does what littune's preprocessing cannot.
    """
    without_checkpoint(spec, what="image tower")
    with explained(spec.name):
        kind = AutoConfig.from_pretrained(spec.name).model_type
        model_class = _model_class(kind, spec)
        # Of a dual model's configuration, the vision tower's class takes its own part.
        model = model_class(model_class.config_class.from_pretrained(spec.name))
        processor = AutoImageProcessor.from_pretrained(spec.name)
    return HFTrunk(model.float(), kind, has_pooler=True), preprocess_of(processor.to_dict(), spec.text)


def build_hf(recipe: Mapping[str, Any]) -> Trunk:
    """The trunk of a recipe, its weights drawn."""
    kind = _KINDS[recipe["model"]]
    config = AutoConfig.for_model(**recipe["config"])
    model: Any = getattr(transformers, kind.model_class)(config)
    if not recipe["has_pooler"]:
        model.pooler = None
    return HFTrunk(model.float(), recipe["model"], has_pooler=recipe["has_pooler"])


def preprocess_of(processor: Mapping[str, Any], spec: str) -> Preprocess:
    """The settings of a transformers image processor as littune's preprocessing.

    Raises:
        InputError: they do not give squares of one size.
    """
    size = processor["size"]
    seen = processor["crop_size"] if processor.get("do_center_crop") else size
    side, fit = (size["shortest_edge"], "short") if "shortest_edge" in size else (size.get("height"), "stretch")
    is_square = seen.get("height") == seen.get("width") and size.get("height") == size.get("width")
    if not processor.get("do_resize") or not side or not is_square or "height" not in seen:
        raise InputError(f"image tower {spec!r}: its image processor does not give squares of one size")
    mean, std = _normalization(processor)
    return Preprocess(
        size=seen["height"],
        resize=side,
        fit=fit,
        interpolation=Image.Resampling(processor["resample"]).name.lower(),
        mean=mean,
        std=std,
    )


def _normalization(processor: Mapping[str, Any]) -> tuple[Channels, Channels]:
    """The mean and deviation of pixels in 0…1; the processor's are of pixels that it rescaled."""
    mean, std = [0.0] * 3, [1.0] * 3
    if processor.get("do_normalize"):
        mean, std = processor["image_mean"], processor["image_std"]
    scale = 255 * processor["rescale_factor"] if processor.get("do_rescale") else 255.0
    red, green, blue = (value / scale for value in mean)
    red_std, green_std, blue_std = (value / scale for value in std)
    return (red, green, blue), (red_std, green_std, blue_std)


def _model_class(kind: str, spec: Spec) -> Any:
    if kind not in _KINDS:
        known = ", ".join(sorted(_KINDS))
        raise InputError(f"image tower {spec.text!r} is a {kind!r} model; littune reads out {known}")
    name = _KINDS[kind].model_class
    found = getattr(transformers, name, None)
    if found is None:
        raise InputError(
            f"image tower {spec.text!r} needs a newer transformers, one that has {name}: pip install -U transformers"
        )
    return found
