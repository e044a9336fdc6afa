"""Training, scoring and the model card put together: what ``littune train`` and ``littune.train`` do."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from littune.apps.card import CARD, keep_records, write_run_card
from littune.base.distributed import launched
from littune.base.errors import InputError
from littune.config import TrainConfig
from littune.evaluation.evaluation import Evaluation, evaluate
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore
from littune.tuning.train import Probe, fit

Stores = str | Path | EmbeddingStore


def train(store: Stores | Sequence[Stores] = (), *, out: str | Path, **settings: Any) -> LiT:
    """Tune a text tower to read out an image tower, or both together, and return the model.

    Args:
        store: one or several stores, or what ``--store`` takes: ``PATH[:WEIGHT[:FIELD,…]]``; none with ``pairs``.
        out: the run folder.
        settings: the other settings of ``TrainConfig``, such as ``text``, ``locking``, ``batch_size``, ``epochs``.

    Raises:
        LittuneError: there is no such setting, or a setting, store or tower cannot be used.
    """
    _check_names(settings)
    stores = [store] if isinstance(store, Stores) else store
    specs = tuple(str(one.path if isinstance(one, EmbeddingStore) else one) for one in stores)
    config = TrainConfig(store=specs, out=Path(out), **settings)
    model = fit(config, probe=make_probe(config.val, allow_foreign=config.allow_foreign))
    if launched().is_first and not _has_card(config):
        _describe(config, model, _score(config, model))
    return model


def _check_names(settings: Iterable[str]) -> None:
    known = {field.name for field in fields(TrainConfig)}
    for name in settings:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"those are {', '.join(sorted(known))}"
            raise InputError(f"train has no setting {name!r}; {hint}")


def run_training(config: TrainConfig) -> Evaluation | None:
    """Train, and score the outcome on the sets in ``config.val``, if there are any; of several processes, one does."""
    model = fit(config, probe=make_probe(config.val, allow_foreign=config.allow_foreign))
    if not launched().is_first:
        return None
    evaluation = _score(config, model)
    if not _has_card(config):
        _describe(config, model, evaluation)
    return evaluation


def _score(config: TrainConfig, model: LiT) -> Evaluation | None:
    return evaluate(model, config.val, allow_foreign=config.allow_foreign) if config.val else None


def _has_card(config: TrainConfig) -> bool:
    """Whether the run was finished before: its card, which its owner may have added to, stays as it is."""
    return (config.out / CARD).is_file()


def _describe(config: TrainConfig, model: LiT, evaluation: Evaluation | None) -> None:
    keep_records(config, evaluation)
    write_run_card(model)


def make_probe(val: Sequence[str], *, allow_foreign: bool = False) -> Probe | None:
    """A probe that scores on these sets, each metric named ``SET/METRIC`` (the set's last name where that tells).

    Args:
        val: the sets.
        allow_foreign: admit stores made elsewhere among them.
    """
    if not val:
        return None

    def probe(model: LiT) -> Mapping[str, float]:
        results = evaluate(model, val, details=False, allow_foreign=allow_foreign).results
        names = [Path(result.data).name for result in results]
        if len(set(names)) < len(names):
            names = [result.data for result in results]
        return {
            f"{name}/{metric}": value
            for name, result in zip(names, results, strict=True)
            for metric, value in result.metrics.items()
        }

    return probe
