"""What an evaluation's page says beside the scores: what was scored, with which versions, and at what cost."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version

from littune.base.errors import LittuneError
from littune.base.files import read_json
from littune.base.memory import peak_memory
from littune.config import read_toml
from littune.evaluation.results import Result
from littune.evaluation.seen import Seen, choices_of_run
from littune.evaluation.settings import Settings
from littune.model.lit import LiT
from littune.model.run_files import COST
from littune.store.manifest import Manifest, has_manifest

_PACKAGES = ("littune", "torch", "transformers", "timm", "numpy")


def about(
    model: LiT, settings: Settings, cost: Mapping[str, float], results: Sequence[Result], seen: Seen | None
) -> dict[str, object]:
    """Names → JSON values, nested: ``model``, ``evaluation``, ``cost``, ``versions``, and a run's ``training``."""
    found: dict[str, object] = {
        "model": {
            "run": None if model.folder is None else str(model.folder),
            "image tower": model.reference.spec,
            "text tower": model.text.spec,
            "dimensions": model.dim,
            "temperature": model.logit_scale,
        },
        "evaluation": {
            **settings.to_dict(),
            "looked at, of what was trained on": seen.paths if seen else [],
            "device": str(model.center.device),
            "precision": model.precision,
        },
        "cost": {
            **_cost_of_run(model),
            **_cost_of_sets(results),
            **cost,
            "peak memory, bytes": peak_memory(),
        },
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
        found = {f"training, {name}": value for name, value in read_json(model.folder / COST).items()}
    except LittuneError:
        return {}
    for path in (choice.path for choice in choices_of_run(model.folder)):
        if has_manifest(path):
            found[f"embedding {path}, seconds"] = Manifest.read(path).seconds
    return found


def _cost_of_sets(results: Sequence[Result]) -> dict[str, float]:
    """What embedding took, whenever that was, of the sets whose stores say so."""
    stores = {result.data: result.store for result in results}
    return {
        f"embedding {name}, seconds": store.manifest.seconds
        for name, store in stores.items()
        if store is not None and store.manifest is not None
    }
