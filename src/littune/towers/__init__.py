"""Towers: what turns a picture or a text into a vector. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from littune.towers.image import Classifier as Classifier
    from littune.towers.image import Identity as Identity
    from littune.towers.image import ImageTower as ImageTower
    from littune.towers.image_sources import load_image_tower as load_image_tower
    from littune.towers.preprocess import Preprocess as Preprocess
    from littune.towers.text import TextTower as TextTower
    from littune.towers.text import Tokens as Tokens
    from littune.towers.text_sources import load_text_tower as load_text_tower

_HOMES = {
    "Classifier": "littune.towers.image",
    "Identity": "littune.towers.image",
    "ImageTower": "littune.towers.image",
    "Preprocess": "littune.towers.preprocess",
    "TextTower": "littune.towers.text",
    "Tokens": "littune.towers.text",
    "load_image_tower": "littune.towers.image_sources",
    "load_text_tower": "littune.towers.text_sources",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'littune.towers' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
