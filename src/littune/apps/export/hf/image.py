"""Image towers as models of transformers: its own as they are, timm's in its wrapper, each with an image processor.

timm's transforms cut a picture as littune does. transformers' processors round a crop's place down where littune and
torchvision round it to the nearest, so that a picture may be seen one pixel to the side.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, TimmWrapperConfig, TimmWrapperModel

from littune.apps.export.hf.saving import save_model
from littune.base.errors import InputError, first_line
from littune.base.files import write_json
from littune.towers.image.from_hf import HFTrunk
from littune.towers.image.from_timm import TimmTrunk
from littune.towers.image.preprocess import Preprocess
from littune.towers.image.tower import ImageTower

# Of the largest number: what folded normalisations and another order of sums may differ by.
_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class ImageModel:
    """An image tower as transformers holds it."""

    model: PreTrainedModel
    """float32, on the CPU."""
    preprocess: Preprocess
    pooling: str
    """"pooler" for the model's ``pooler_output``, or "cls", "mean" or "cls+mean" of its ``last_hidden_state``."""
    num_prefix: int
    """Tokens before those of the patches."""
    num_places: int
    """Patches, or places of a map."""
    layout: str
    """``last_hidden_state``: "tokens" (n, t, d), or a map, "NCHW" or "NHWC"."""

    @property
    def is_timm(self) -> bool:
        """Whether timm's transforms prepare its pixels."""
        return isinstance(self.model, TimmWrapperModel)

    @torch.no_grad()
    def embed(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n dim"]:
        """The embeddings of normalised images."""
        output = self.model(pixel_values=images)
        if self.pooling == "pooler":
            return output.pooler_output  # type: ignore[no-any-return]
        tokens = output.last_hidden_state
        if self.layout != "tokens":
            tokens = tokens.flatten(1, 2) if self.layout == "NHWC" else tokens.flatten(2).transpose(1, 2)
        mean: Tensor = tokens[:, self.num_prefix :].mean(dim=1)
        if self.pooling == "mean":
            return mean
        return tokens[:, 0] if self.pooling == "cls" else torch.cat([tokens[:, 0], mean], dim=1)


def image_model(tower: ImageTower) -> ImageModel:
    """A copy of the tower as a model of transformers, tried out on a picture of noise.

    Raises:
        InputError: transformers has no such model, or none that gives the same embeddings.
    """
    if not isinstance(tower.trunk, HFTrunk | TimmTrunk):
        raise InputError(f"the image tower {tower.spec} is neither timm's nor transformers'")
    trunk = copy.deepcopy(tower.trunk).cpu().float().eval()
    images = _noise(tower.preprocess)
    model = trunk.model if isinstance(trunk, HFTrunk) else _wrapped(trunk, tower)
    layout, num_prefix, num_places = "tokens", 0, 0
    with torch.no_grad():
        output = model(pixel_values=images)
        pooling = tower.pooling
        if pooling == "own":
            pooling = "cls" if output.pooler_output is None else "pooler"
            expected = trunk.own(images)
        else:
            token, places = trunk.tokens(images)
            layout, num_prefix, num_places = _layout(output.last_hidden_state, places)
            expected = _pooled(token, places, pooling)
    found = ImageModel(
        model=model,
        preprocess=tower.preprocess,
        pooling=pooling,
        num_prefix=num_prefix,
        num_places=num_places,
        layout=layout,
    )
    if not torch.allclose(found.embed(images), expected, rtol=0, atol=_TOLERANCE * float(expected.abs().max())):
        raise InputError(f"{type(model).__name__} of transformers pools otherwise than the image tower {tower.spec}")
    return found


def write_image_model(image: ImageModel, folder: Path) -> None:
    """Write the model and its image processor as a folder of transformers'.

    Raises:
        LittuneError: the folder cannot be written.
    """
    save_model(image.model, folder)
    if not image.is_timm:  # whose processor reads the model's configuration
        write_json(folder / "preprocessor_config.json", clip_processor(image.preprocess))


def shifted_crop(image: ImageModel) -> tuple[str, ...]:
    """What a user should know of the image processor; empty where it gives littune's own pixels."""
    if image.is_timm or image.preprocess.fit != "short":
        return ()
    return ("transformers' image processor may cut a picture one pixel to the side of where littune cuts it",)


def clip_processor(preprocess: Preprocess) -> dict[str, object]:
    """The settings of transformers' image processor of CLIP, which can do all that littune's preprocessing can."""
    side = preprocess.resize
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if preprocess.fit == "short" else {"height": side, "width": side},
        "resample": int(Image.Resampling[preprocess.interpolation.upper()]),
        "do_center_crop": True,
        "crop_size": {"height": preprocess.size, "width": preprocess.size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def timm_settings(preprocess: Preprocess) -> dict[str, object]:
    """The settings of timm's transforms."""
    size, resize = preprocess.size, preprocess.resize
    # timm divides and cuts down to whole pixels, which rounding must not leave one short.
    share = next(share for share in (size / resize, size / (resize + 1e-3)) if int(size / share) == resize)
    return {
        "input_size": [3, size, size],
        "interpolation": preprocess.interpolation,
        "crop_pct": share,
        "crop_mode": "center" if preprocess.fit == "short" else "squash",
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


def _wrapped(trunk: TimmTrunk, tower: ImageTower) -> PreTrainedModel:
    trunk.drop_head()
    assert trunk.recipe is not None
    options = trunk.recipe.get("options")
    config = TimmWrapperConfig(
        architecture=trunk.name,
        model_args=dict(options) if isinstance(options, Mapping) else None,
        num_labels=0,
        num_features=tower.dim,
        hidden_size=tower.dim,
        pretrained_cfg=timm_settings(tower.preprocess),
    )
    model = TimmWrapperModel(config).eval()
    try:
        model.timm_model.load_state_dict(trunk.model.state_dict())
    except RuntimeError as error:
        raise InputError(
            f"timm makes another model of the image tower {tower.spec} now ({first_line(error)})"
        ) from error
    return model


def _layout(hidden: Tensor, places: Float[Tensor, "1 t d"]) -> tuple[str, int, int]:
    """How the last outputs lie, how many come before those of the places, and how many places there are."""
    num_places, width = places.shape[1:]
    if hidden.ndim == 3:
        return "tokens", hidden.shape[1] - num_places, num_places
    return "NCHW" if hidden.shape[1] == width else "NHWC", 0, num_places


def _pooled(token: Tensor | None, places: Tensor, pooling: str) -> Tensor:
    mean = places.mean(dim=1)
    if pooling == "mean":
        return mean
    assert token is not None, "the tower was tried out with this pooling"
    return token if pooling == "cls" else torch.cat([token, mean], dim=1)


def _noise(preprocess: Preprocess) -> Float[Tensor, "1 3 h w"]:
    shape = (1, 3, preprocess.size, preprocess.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
