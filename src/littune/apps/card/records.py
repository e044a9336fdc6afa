"""What a run remembers for its card: ``scores.json`` and ``data.json``, written once when it is finished.

Stores may be gone or changed when a card is asked for later, and scores cost minutes: what they were is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from littune.base.errors import InputError, LittuneError
from littune.base.files import read_json, write_json
from littune.config import StoreChoice, TrainConfig, read_toml
from littune.evaluation.evaluation import Evaluation
from littune.model.run_files import COST
from littune.pairs.open import open_pairs
from littune.store.store import EmbeddingStore

SCORES = "scores.json"
"""What the run scored on its --val when it was finished, as ``Evaluation.to_dict`` says it, without its cost."""

DATA = "data.json"
"""What the run was trained on."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A store or a set of pairs that a run was trained on."""

    name: str
    """As it was named."""
    kind: str
    """``images``, ``prototypes`` or ``foreign``, of a store; ``pixels``; or empty where it could not be read."""
    rows: int | None = None
    tower: str = ""
    """The image tower that made the store."""
    pairs: str = ""
    """What the store was made from."""
    texts: tuple[str, ...] = ()
    """The fields that supplied texts; empty for the source's own choice."""
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Records:
    """What a run's folder says of how it came about; empty where it does not say."""

    settings: Mapping[str, Any]
    """``config.toml``."""
    cost: Mapping[str, Any]
    """``cost.json``."""
    data: Sequence[Source]
    results: Sequence[Mapping[str, Any]]
    """One for each set and language: ``Result.to_dict``."""


def keep_records(config: TrainConfig, evaluation: Evaluation | None) -> None:
    """Write into a finished run what it was trained on and what it scored.

    Args:
        config: the run's settings.
        evaluation: the scores on ``config.val``; None where there is none.
    """
    write_json(config.out / DATA, {"trained_on": [asdict(source) for source in _sources(config)]})
    if evaluation is not None:
        write_json(config.out / SCORES, {"results": evaluation.to_dict()["results"]})


def read_records(run: Path | None) -> Records:
    """What a run's folder says.

    Args:
        run: the folder; None for a model that came from no run.

    Raises:
        InputError: one of the files is damaged.
    """
    settings = read_toml(run / "config.toml") if run is not None and (run / "config.toml").is_file() else {}
    return Records(
        settings=settings,
        cost=_read(run, COST),
        data=_read_data(run),
        results=_read(run, SCORES).get("results", []),
    )


def _read_data(run: Path | None) -> list[Source]:
    try:
        listed = _read(run, DATA).get("trained_on", [])
        return [Source(**{**source, "texts": tuple(source["texts"])}) for source in listed]
    except (KeyError, TypeError) as error:
        raise InputError(f"{run}/{DATA} is damaged ({error!r}); delete it: only the card reads it") from error


def _read(run: Path | None, file: str) -> dict[str, Any]:
    return read_json(run / file) if run is not None and (run / file).is_file() else {}


def _sources(config: TrainConfig) -> list[Source]:
    return [_of_pairs(config)] if config.pairs else [_of_store(StoreChoice.parse(spec)) for spec in config.store]


def _of_pairs(config: TrainConfig) -> Source:
    fields = tuple(field.strip() for field in config.texts.split(",") if field.strip())
    try:
        rows = open_pairs(config.pairs, texts=fields, image_field=config.image_field or None).num_samples
    except LittuneError:  # as with a store
        return Source(name=config.pairs, kind="", texts=fields)
    return Source(name=config.pairs, kind="pixels", rows=rows, texts=fields)


def _of_store(choice: StoreChoice) -> Source:
    try:
        store = EmbeddingStore.open(choice.path, allow_foreign=True)
    except LittuneError:  # it was moved away meanwhile, which takes nothing from the run
        return Source(name=str(choice.path), kind="", texts=choice.fields, weight=choice.weight)
    made = store.manifest.settings if store.manifest else None
    return Source(
        name=str(choice.path),
        kind=store.kind,
        rows=store.num_rows,
        tower=made.tower if made else "",
        pairs=made.pairs if made else "",
        texts=choice.fields or (made.texts if made else ()),
        weight=choice.weight,
    )
