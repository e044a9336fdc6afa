"""littune: turn any pre-trained image model into a zero-shot classifier and a search engine.

The public names; each is imported when it is first used, so that ``import littune`` loads no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from littune.apps.search import Hit as Hit
    from littune.apps.search import Index as Index
    from littune.apps.training import train as train
    from littune.base.errors import LittuneError as LittuneError
    from littune.config import TrainConfig as TrainConfig
    from littune.evaluation.comparison import compare as compare
    from littune.evaluation.evaluation import evaluate as evaluate
    from littune.model.lit import LiT as LiT
    from littune.model.lit import Score as Score
    from littune.model.zero_shot import zero_shot_classifier as zero_shot_classifier
    from littune.pairs.open import open_pairs as open_pairs
    from littune.store.embed import embed as embed
    from littune.store.prototypes import prototypes as prototypes
    from littune.store.store import EmbeddingStore as EmbeddingStore
    from littune.towers.image.sources import load_image_tower as load_image_tower
    from littune.towers.image.tower import ImageTower as ImageTower
    from littune.towers.text.sources import load_text_tower as load_text_tower
    from littune.towers.text.tower import TextTower as TextTower

_HOMES = {
    "EmbeddingStore": "littune.store.store",
    "Hit": "littune.apps.search",
    "ImageTower": "littune.towers.image.tower",
    "Index": "littune.apps.search",
    "LiT": "littune.model.lit",
    "LittuneError": "littune.base.errors",
    "Score": "littune.model.lit",
    "TextTower": "littune.towers.text.tower",
    "TrainConfig": "littune.config",
    "compare": "littune.evaluation.comparison",
    "embed": "littune.store.embed",
    "evaluate": "littune.evaluation.evaluation",
    "load_image_tower": "littune.towers.image.sources",
    "load_text_tower": "littune.towers.text.sources",
    "open_pairs": "littune.pairs.open",
    "prototypes": "littune.store.prototypes",
    "train": "littune.apps.training",
    "zero_shot_classifier": "littune.model.zero_shot",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'littune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
