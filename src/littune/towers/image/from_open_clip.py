"""open_clip's image towers: its own ViTs and ResNets, and those of timm that it puts a projection on.

Pooling "own" is what ``encode_image`` gives before it is scaled to unit length, so that it lies in the space that
the CLIP's own text tower shares. The tokens are those of the last layer, before any attentional pooling.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from littune.base.errors import InputError, first_line
from littune.towers.image.from_timm import TimmTrunk, check_architecture
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import Trunk, split_tokens
from littune.towers.open_clip import Clip, find_architecture, find_clip
from littune.towers.specs import Spec

# After littune.towers.open_clip, which says what to install.
from open_clip.model import _build_vision_tower  # isort: skip
from open_clip.timm_model import TimmModel  # isort: skip
from open_clip.transform import PreprocessCfg, merge_preprocess_dict  # isort: skip
from open_clip.transformer import VisionTransformer  # isort: skip

_FITS = {"shortest": "short", "squash": "stretch"}


class OpenClipTrunk(Trunk):
    """An image tower of open_clip; its recipe is its configuration."""

    def __init__(self, model: nn.Module, recipe: Mapping[str, object]) -> None:
        super().__init__(model, recipe)

    def own(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        output = self.model(images)
        # CoCa's gives its tokens too.
        embeddings: Tensor = output[0] if isinstance(output, tuple) else output
        return embeddings

    def tokens(self, images: Float[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"] | None, Float[Tensor, "n t d"]]:
        model: Any = self.model
        if isinstance(model, TimmModel):
            return TimmTrunk(model.trunk, "").tokens(images)
        if not isinstance(model, VisionTransformer):
            return split_tokens(_last(model, images), num_prefix=0, has_class_token=False)
        normed = model.attn_pool is None
        output = model.forward_intermediates(
            images,
            indices=1,
            normalize_intermediates=normed,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        return output["image_intermediates_prefix"][-1][:, 0], output["image_intermediates"][-1]


def load_open_clip(spec: Spec) -> tuple[Trunk, Preprocess]:
    """Load the image tower of ``open_clip:MODEL@CHECKPOINT_OR_TAG`` or ``open_clip:FOLDER``.

    Raises:
        InputError: there is no such model, checkpoint or tag; the weights cannot be had or do not fit; or littune has
            no such preprocessing.
    """
    clip = find_clip(spec, "image tower")
    trunk = _built(clip)
    clip.fill(trunk.model)
    return trunk, preprocess_of(clip, trunk.model)


def draw_open_clip(spec: Spec) -> tuple[Trunk, Preprocess]:
    """The image tower of ``open_clip:MODEL`` or ``open_clip:FOLDER`` with weights that open_clip draws.

    Raises:
        InputError: there is no such model, the spec names weights, or littune has no such preprocessing.
    """
    clip = find_architecture(spec, "image tower")
    trunk = _built(clip)
    return trunk, preprocess_of(clip, trunk.model)


def build_open_clip(recipe: Mapping[str, Any]) -> Trunk:
    """The trunk of a recipe, its weights drawn.

    Raises:
        InputError: it is to be one of timm's that timm has not, or with weights that timm would download.
    """
    what, wrapped = "the recipe of an image tower", recipe["vision_cfg"].get("timm_model_name")
    if wrapped:
        check_architecture(wrapped, what)
    if recipe["vision_cfg"].get("timm_model_pretrained"):
        raise InputError(f"{what} asks for timm's own weights of {wrapped}, which littune never writes into one")
    model = _build_vision_tower(recipe["embed_dim"], dict(recipe["vision_cfg"]), recipe["quick_gelu"])
    return OpenClipTrunk(model, recipe)


def preprocess_of(clip: Clip, model: nn.Module) -> Preprocess:
    """What open_clip evaluates ``model`` with.

    Raises:
        InputError: littune has no such preprocessing.
    """
    size: Any = model.image_size
    settings = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), {**clip.preprocess, "size": size}))
    height, width = (size, size) if isinstance(size, int) else size
    if height != width or settings.resize_mode not in _FITS:
        raise clip.problem(
            f"sees {height} x {width} pixels, resized by {settings.resize_mode!r}; littune has squares by "
            f"{' or '.join(_FITS)} alone"
        )
    return Preprocess(
        size=height,
        resize=height,
        fit=_FITS[settings.resize_mode],
        interpolation="bilinear" if settings.interpolation == "bilinear" else "bicubic",
        mean=_channels(settings.mean),
        std=_channels(settings.std),
    )


def _built(clip: Clip) -> Trunk:
    recipe = {
        "kind": "open_clip",
        "embed_dim": clip.embed_dim,
        # Weights are loaded over all of it: timm's own are not to be downloaded.
        "vision_cfg": {**clip.config["vision_cfg"], "timm_model_pretrained": False},
        "quick_gelu": clip.quick_gelu,
    }
    try:
        return build_open_clip(recipe)
    except Exception as error:  # Unknown settings, shapes that do not go together, models that timm lacks.
        raise clip.problem(f"open_clip cannot build it ({first_line(error)})") from error


def _last(model: Any, images: Tensor) -> Tensor:
    """The last stage's map of a ResNet."""
    output: Tensor = model.forward_intermediates(images, indices=1, intermediates_only=True)["image_intermediates"][-1]
    return output


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = (values,) * 3 if isinstance(values, float | int) else values
    return (float(red), float(green), float(blue))
