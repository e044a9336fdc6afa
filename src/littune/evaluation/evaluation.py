"""Score a model on sets of labelled images and of pairs (section 4; the protocol is clip-benchmark's).

A labelled set is a zero-shot classification task; pairs are a retrieval task both ways. Every set is read
from a store: the image tower runs once for a set, however many models are scored on it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError
from littune.base.files import write_json
from littune.config import Check
from littune.evaluation.about import about
from littune.evaluation.report.page import write_report
from littune.evaluation.results import Result
from littune.evaluation.scorer import OpenedSet, Scorer
from littune.evaluation.seen import Seen
from littune.evaluation.sets.registry import split_known
from littune.evaluation.sets.stores import open_set, place_of_sets
from littune.evaluation.settings import Settings
from littune.evaluation.tables import to_text
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

Data = str | Path | EmbeddingStore


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores on several sets, in the order in which they were named."""

    results: tuple[Result, ...]
    about: dict[str, object]
    """What was scored, how and at what cost: versions, settings, seconds."""

    def to_dict(self) -> dict[str, object]:
        """``{"results": [{"data": …, "task": …, "num_images": …, "metrics": {…}, …}], "about": {…}}``."""
        return {"results": [result.to_dict() for result in self.results], "about": self.about}

    def save(self, path: str | Path) -> None:
        """Write ``to_dict()`` to a JSON file, or, where ``path`` ends in .html, the report.

        Raises:
            LittuneError: the file cannot be written.
        """
        if Path(path).suffix.lower() in (".html", ".htm"):
            write_report(Path(path), self.results, about=self.about)
        else:
            write_json(Path(path), self.to_dict())

    def to_text(self) -> str:
        """Tables of percents for people to read."""
        return to_text(self.results)


def evaluate(
    model: LiT,
    data: Data | Sequence[Data],
    *,
    templates: str | Path | Sequence[str] | None = None,
    classnames: str | Path | Sequence[str] | None = None,
    canonical: bool = False,
    texts: Sequence[str] = (),
    languages: Sequence[str] = (),
    ks: Sequence[int] = (1, 5, 10),
    checks: Sequence[Check] = (),
    seen: Sequence[str | Path] | None = None,
    details: bool = True,
    allow_foreign: bool = False,
    batch_size: int = 32,
    workers: int = 2,
) -> Evaluation:
    """Score ``model`` on each set.

    A set of pairs is embedded once and kept in a cache (``$LITTUNE_CACHE``, by default ``~/.cache/littune``).
    A k that is larger than the number of answers is left out of the metrics.

    Args:
        model: the model.
        data: stores, folders of stores, or specs of pairs or labelled images; ``NAME:PATH`` for one of the paper's
            sets (``littune info sets``).
        templates: for labelled sets, a template set's name, a file, or the templates; by default those that came
            with the set, else ``DEFAULT_TEMPLATES``.
        classnames: for labelled sets, what the classes are called: a file, ``imagenet``, ``clip_benchmark:NAME`` or
            the names; by default the set's own. A file with ``{lang}`` in its name serves ``languages``.
        canonical: whether to lower-case the prompts of labelled sets and strip their punctuation.
        texts: for pairs, the fields that supply the texts; by default the captions.
        languages: score each set in these languages too, as far as it has texts or class names in them.
        ks: for pairs, the k of recall@k.
        checks: what else to look at: ``duplicates``, ``hubness``, ``probe``, ``prompts``, or ``all``.
        seen: the stores that the model was trained on, for the checks ``duplicates`` and ``hubness``; by default
            those that its run names.
        details: whether to add intervals, calibration, hubness, and what came out for each image.
        allow_foreign: admit stores made elsewhere, of which only the dimension can be checked.
        batch_size: how many images the tower sees at once, where a set has to be embedded.
        workers: how many threads decode images.

    Raises:
        InputError: there is no set, or a set or the templates cannot be used.
        MismatchError: a store is of another image tower.
    """
    settings = Settings(
        templates=templates,
        classnames=classnames,
        canonical=canonical,
        texts=tuple(texts),
        languages=tuple(languages),
        ks=tuple(ks),
        checks=tuple(checks),
        seen=None if seen is None else tuple(map(str, seen)),
        details=details,
        allow_foreign=allow_foreign,
    )
    items = [data] if isinstance(data, Data) else list(data)
    if not items:
        raise InputError("there is nothing to score on; name at least one store or spec of pairs")
    started = time.monotonic()
    trained_on = Seen.open(model, settings)
    with place_of_sets(model) as place:
        # Whatever can be wrong with any set, or with what is asked of it, shows before one is scored.
        opened = [_opened(model, item, settings, place, batch_size=batch_size, workers=workers) for item in items]
        alone = len(opened) == 1
        scorers = [Scorer(model=model, settings=settings, seen=trained_on, opened=its, alone=alone) for its in opened]
        jobs = [job for scorer in scorers for job in scorer.jobs()]
        ready = time.monotonic()
        results = tuple(job() for job in jobs)
    cost = {"opening and embedding, seconds": ready - started, "scoring, seconds": time.monotonic() - ready}
    return Evaluation(results=results, about=about(model, settings, cost, results, trained_on))


def _opened(model: LiT, item: Data, settings: Settings, place: Path, *, batch_size: int, workers: int) -> OpenedSet:
    known, spec = (None, item) if isinstance(item, EmbeddingStore) else split_known(item)
    store = open_set(
        model,
        spec,
        place=place,
        texts=settings.texts,
        border=known.border if known else 0,
        allow_foreign=settings.allow_foreign,
        batch_size=batch_size,
        workers=workers,
    )
    name = str(item.path if isinstance(item, EmbeddingStore) else item)
    if known and (known.task == "zero_shot") != (store.classnames is not None):
        what = "labelled images" if known.task == "zero_shot" else "pairs"
        raise InputError(f"{name} is not {known.title}, a set of {what}; leave the name {known.name}: out")
    if known and known.num_classes and store.classnames and len(store.classnames) != known.num_classes:
        raise InputError(
            f"{name} has {len(store.classnames)} classes and {known.title} has {known.num_classes}; leave the name "
            f"{known.name}: out"
        )
    return OpenedSet(name=name, store=store, known=known)
