"""Preprocess: from a picture to a tower's pixels.

Resize and crop are one resampling of the cropped box, which gives the pixels of resizing first and cropping then
without computing those that are cut off. Pixels stay bytes until they are a batch, a quarter of the traffic
between the threads that decode and the tower; scaling and normalisation happen there.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from littune.base.errors import InputError

_FITS = ("short", "stretch")
_FILTERS = {name.lower(): Image.Resampling[name] for name in ("NEAREST", "BILINEAR", "BICUBIC", "LANCZOS")}
Channels = tuple[float, float, float]
# Left, upper, right, lower, in a picture's own pixels, not necessarily whole ones.
Box = tuple[float, float, float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """Resize, centre crop and normalisation."""

    size: int
    """The side of the square that the tower sees."""
    resize: int
    """What is resized to before the crop: the short side, or both sides where ``fit`` is "stretch"."""
    fit: str = "short"
    """"short" keeps the aspect ratio and crops the long side; "stretch" does not keep it."""
    interpolation: str = "bicubic"
    """"nearest", "bilinear", "bicubic" or "lanczos"."""
    mean: Channels
    """Subtracted from red, green and blue in 0…1."""
    std: Channels
    """Divides what is left."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise InputError(f"preprocessing: size {self.size} must be from 1 to resize, which is {self.resize}")
        if self.fit not in _FITS:
            raise InputError(f"preprocessing: fit {self.fit!r} is unknown; choose one of {', '.join(_FITS)}")
        if self.interpolation not in _FILTERS:
            known = ", ".join(_FILTERS)
            raise InputError(f"preprocessing: interpolation {self.interpolation!r} is unknown; choose one of {known}")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError(f"preprocessing: mean {self.mean} and std {self.std} must be of 3 colours, std above 0")

    def __call__(self, picture: Image.Image) -> UInt8[Tensor, "3 size size"]:
        """The picture's pixels as the tower sees them, not yet scaled; they lie in memory as in the picture (h w 3)."""
        return self.cut(picture, self._box(picture.width, picture.height))

    def cut(self, picture: Image.Image, box: Box) -> UInt8[Tensor, "3 size size"]:
        """The pixels of a box of the picture, resized to the tower's square; they lie in memory as (h w 3)."""
        if picture.mode != "RGB":
            picture = picture.convert("RGB")
        shape = (self.size, self.size)
        cropped = picture.resize(shape, _FILTERS[self.interpolation], box=box)
        return torch.from_numpy(np.array(cropped)).permute(2, 0, 1)

    def normalize(self, pixels: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        """Scale to 0…1, subtract the mean and divide by the standard deviation, in float32."""
        images = pixels.float()
        # As images in the order of the pixels' memory: broadcasting 3 numbers over channels-last takes twice as long.
        mean, std = (
            torch.empty_like(images[:1]).copy_(torch.tensor(values).view(3, 1, 1)) for values in (self.mean, self.std)
        )
        return images.div_(255).sub_(mean).div_(std)

    def to_dict(self) -> dict[str, object]:
        """JSON values, for ``from_dict``."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """What ``to_dict`` gave.

        Raises:
            InputError: a key is missing or unknown, or a value cannot be used.
        """
        if values.keys() != {field.name for field in fields(cls)}:
            raise InputError(f"preprocessing with the keys {sorted(values)} is not littune's")
        return cls(**{**values, "mean": tuple(values["mean"]), "std": tuple(values["std"])})

    def _box(self, width: int, height: int) -> Box:
        """The part of the picture that is seen."""
        wide, high = self._resized(width, height)
        # Whole pixels of the resized picture, rounded as torchvision rounds them.
        left, upper = round((wide - self.size) / 2), round((high - self.size) / 2)
        right, lower = (left + self.size) * width / wide, (upper + self.size) * height / high
        return left * width / wide, upper * height / high, min(right, width), min(lower, height)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        if self.fit == "stretch":
            return self.resize, self.resize
        if width <= height:
            return self.resize, self.resize * height // width
        return self.resize * width // height, self.resize
