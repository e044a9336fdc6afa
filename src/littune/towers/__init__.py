"""Towers: what turns a picture or a text into a vector. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from littune.towers.image.preprocess import Preprocess as Preprocess
    from littune.towers.image.sources import load_image_tower as load_image_tower
    from littune.towers.image.tower import Classifier as Classifier
    from littune.towers.image.tower import Identity as Identity
    from littune.towers.image.tower import ImageTower as ImageTower
    from littune.towers.text.sources import load_text_tower as load_text_tower
    from littune.towers.text.tower import TextTower as TextTower
    from littune.towers.text.tower import Tokens as Tokens

_HOMES = {
    "Classifier": "littune.towers.image.tower",
    "Identity": "littune.towers.image.tower",
    "ImageTower": "littune.towers.image.tower",
    "Preprocess": "littune.towers.image.preprocess",
    "TextTower": "littune.towers.text.tower",
    "Tokens": "littune.towers.text.tower",
    "load_image_tower": "littune.towers.image.sources",
    "load_text_tower": "littune.towers.text.sources",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'littune.towers' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
