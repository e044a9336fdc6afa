"""Augmentations of training images (paper, App. C and D): a plain resize, or an Inception crop, and a flip.

Each is a choice of the box of the picture that is seen; the box is resampled once, to the tower's size and with the
tower's interpolation. What is drawn comes from the generator that is handed in, and from nothing else.
"""

import math
from typing import assert_never

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from littune.config import Augment
from littune.towers.image.preprocess import Box, Preprocess

_MIN_AREA = 0.05
_ASPECTS = (3 / 4, 4 / 3)


def augmented(
    picture: Image.Image, preprocess: Preprocess, random: np.random.Generator, *, augment: Augment, flip: bool
) -> UInt8[Tensor, "3 size size"]:
    """A training view of an RGB picture; like the picture's pixels, it lies in memory as (h w 3).

    Args:
        picture: the picture.
        preprocess: the tower's.
        random: what is drawn comes from here.
        augment: the choice of the box: "none", as the tower sees pictures when it is evaluated; "resize", the whole
            picture stretched to a square; "inception", a random part of it.
        flip: mirror every other picture, left for right.
    """
    match augment:
        case "none":
            pixels = preprocess(picture)
        case "resize":
            pixels = preprocess.cut(picture, (0, 0, picture.width, picture.height))
        case "inception":
            pixels = preprocess.cut(picture, inception_box(picture.width, picture.height, random))
        case _:
            assert_never(augment)
    return _mirrored(pixels) if flip and random.random() < 0.5 else pixels


def inception_box(width: int, height: int, random: np.random.Generator) -> Box:
    """A box of 5 to 100 % of the area, 3/4 to 4/3 times as wide as high: left, upper, right, lower.

    Drawn as by big_vision: the aspect evenly among those that the picture has room for, then the height evenly, so
    that small boxes are likelier than if the area were drawn. A picture too long for any such box is seen whole.
    """
    lowest, highest = max(_ASPECTS[0], _MIN_AREA * width / height), min(_ASPECTS[1], width / height / _MIN_AREA)
    if lowest > highest:
        return (0, 0, width, height)
    aspect = random.uniform(lowest, highest)
    largest = min(height, width / aspect)
    smallest = min(math.sqrt(_MIN_AREA * width * height / aspect), largest)
    high = random.uniform(smallest, largest)
    wide = min(high * aspect, width)
    left, upper = random.uniform(0, width - wide), random.uniform(0, height - high)
    return (left, upper, min(left + wide, width), min(upper + high, height))


def _mirrored(pixels: UInt8[Tensor, "3 h w"]) -> UInt8[Tensor, "3 h w"]:
    # By numpy, as torch would call on the tower's threads and wait for them.
    rows = pixels.permute(1, 2, 0).numpy()
    return torch.from_numpy(rows[:, ::-1].copy()).permute(2, 0, 1)
