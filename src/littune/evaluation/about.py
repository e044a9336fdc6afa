"""What an evaluation's page says beside the scores: what was scored, with which versions, and at what cost."""

import platform
from collections.abc import Mapping
from importlib.metadata import version

from littune.base.errors import LittuneError
from littune.base.files import read_json
from littune.base.memory import peak_memory
from littune.config import read_toml
from littune.evaluation.settings import Settings
from littune.model.lit import LiT
from littune.model.run_files import COST

_PACKAGES = ("littune", "torch", "transformers", "timm", "numpy")


def about(model: LiT, settings: Settings, cost: Mapping[str, float]) -> dict[str, object]:
    """Names → JSON values, nested: ``model``, ``evaluation``, ``cost``, ``versions``, and a run's ``training``."""
    found: dict[str, object] = {
        "model": {
            "run": None if model.folder is None else str(model.folder),
            "image tower": model.reference.spec,
            "text tower": model.text.spec,
            "dimensions": model.dim,
            "temperature": model.logit_scale,
        },
        "evaluation": settings.to_dict(),
        "cost": {**_cost_of_run(model), **cost, "peak memory, bytes": peak_memory()},
        "versions": {
            **{name: version(name) for name in _PACKAGES},
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
    }
    if model.folder is not None and (model.folder / "config.toml").is_file():
        found["training"] = read_toml(model.folder / "config.toml")
    return found


def _cost_of_run(model: LiT) -> dict[str, object]:
    """What training took, where the run says so."""
    if model.folder is None:
        return {}
    try:
        return {f"training, {name}": value for name, value in read_json(model.folder / COST).items()}
    except LittuneError:
        return {}
