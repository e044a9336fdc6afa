"""What a model can do: zero-shot classification and retrieval, scored. Names are imported when they are first used."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from littune.evaluation.comparison import Comparison as Comparison
    from littune.evaluation.comparison import compare as compare
    from littune.evaluation.evaluation import Evaluation as Evaluation
    from littune.evaluation.evaluation import evaluate as evaluate
    from littune.evaluation.results import Result as Result

_HOMES = {
    "Comparison": "littune.evaluation.comparison",
    "Evaluation": "littune.evaluation.evaluation",
    "Result": "littune.evaluation.results",
    "compare": "littune.evaluation.comparison",
    "evaluate": "littune.evaluation.evaluation",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'littune.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
