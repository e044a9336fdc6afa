"""Score a model on sets of labelled images and of pairs (section 4; the protocol is clip-benchmark's).

A labelled set is a zero-shot classification task; pairs are a retrieval task both ways. Every set is read
from a store: the image tower runs once for a set, however many models are scored on it.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from littune.base.errors import InputError
from littune.base.files import littune_cache, write_json
from littune.base.progress import log
from littune.config import Check
from littune.evaluation.about import about
from littune.evaluation.checks.probe import check_installed, cross_validated
from littune.evaluation.classification import Task, score_classification
from littune.evaluation.report.page import write_report
from littune.evaluation.results import Result, ZeroShotOutcome
from littune.evaluation.retrieval import Pairs, score_retrieval
from littune.evaluation.seen import Seen
from littune.evaluation.sets.labels import labels_of
from littune.evaluation.sets.languages import class_texts_in, texts_in
from littune.evaluation.sets.registry import KnownSet, split_known
from littune.evaluation.sets.stores import open_set, place_of_sets
from littune.evaluation.settings import Settings
from littune.evaluation.tables import to_text
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

_MANY_PROMPTS = 1000
"""A classifier of so many prompts or more is kept."""

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
        details=details,
    )
    items = [data] if isinstance(data, Data) else list(data)
    if not items:
        raise InputError("there is nothing to score on; name at least one store or spec of pairs")
    started = time.monotonic()
    trained_on = Seen.open(model, seen, allow_foreign=allow_foreign) if settings.looks_back else None
    with place_of_sets(model) as place:
        # All are opened before one is scored, so that what is wrong with any of them costs nothing.
        opened = []
        for item in items:
            known, spec = (None, item) if isinstance(item, EmbeddingStore) else split_known(item)
            store = open_set(
                model,
                spec,
                place=place,
                texts=texts,
                border=known.border if known else 0,
                allow_foreign=allow_foreign,
                batch_size=batch_size,
                workers=workers,
            )
            name = str(item.path if isinstance(item, EmbeddingStore) else item)
            opened.append(
                _Scorer(
                    model=model,
                    settings=settings,
                    seen=trained_on,
                    store=store,
                    name=name,
                    known=known,
                    alone=len(items) == 1,
                )
            )
        if settings.checks_for("probe") and any(scorer.store.classnames for scorer in opened):
            check_installed()
        embedded = time.monotonic()
        results = tuple(result for scorer in opened for result in scorer.results())
    cost = {"opening and embedding, seconds": embedded - started, "scoring, seconds": time.monotonic() - embedded}
    return Evaluation(results=results, about=about(model, settings, cost))


@dataclass(frozen=True, kw_only=True)
class _Scorer:
    """Scores the model on one set."""

    model: LiT
    settings: Settings
    seen: Seen | None
    store: EmbeddingStore
    name: str
    known: KnownSet | None
    alone: bool
    """Whether it is the only set."""

    def results(self) -> Iterator[Result]:
        """The score in the set's own words, and then one for each language."""
        labelled = self.store.classnames is not None
        yield self._labelled() if labelled else self._paired(self.store.texts(self.settings.texts))
        for language in self.settings.languages:
            try:
                yield self._labelled_in(language) if labelled else self._paired_in(language)
            except InputError as error:
                # Of several sets, some may have no texts in it.
                if self.alone:
                    raise
                log(f"{self.name} is not scored in {language}: {error}")

    def _labelled(self) -> Result:
        labels = labels_of(self.store, known=self.known, classnames=self.settings.own_classnames)
        task = Task(model=self.model, store=self.store, labels=labels, name=self.name)
        of_known = self.known.templates if self.known else None
        result = self._classify(task, self.settings.prompts(of_known, self.store.templates))
        if self.settings.checks_for("probe"):
            result = result.with_findings("probe", self._probes(task))

        def rescored(dropped: Sequence[int]) -> dict[str, float]:
            assert isinstance(result.outcome, ZeroShotOutcome), "checks come with details"
            return task.metrics(result.outcome.ranks, ~np.isin(task.rows, dropped))

        return self._without_duplicates(result, rescored)

    def _labelled_in(self, language: str) -> Result:
        labels = labels_of(self.store, known=self.known, classnames=self.settings.own_classnames)
        their = class_texts_in(labels.classnames, language, pattern=self.settings.classnames_pattern)
        tasks = [
            Task(model=self.model, store=self.store, labels=labels.among(their.classes, names), name=self.name)
            for names in (their.names, their.english_names)
        ]
        result = self._classify(tasks[0], self.settings.prompts(their.templates))
        english = self._classify(tasks[1], self.settings.prompts(their.english_templates))
        return replace(result, language=language).beside_english(english)

    def _probes(self, task: Task) -> dict[str, float]:
        """What the image tower alone can do, told its classes: the rest of the set teaches each fifth of it."""
        raw = self.store.take(task.rows).astype(np.float32)
        return {
            "linear probe": cross_validated(raw, task.first, which="linear_probe"),
            "10-shot least squares": cross_validated(raw, task.first, which="few_shot"),
        }

    def _classify(self, task: Task, templates: Sequence[str]) -> Result:
        many = len(task.labels.classnames) * len(templates) >= _MANY_PROMPTS
        return score_classification(
            task,
            templates,
            canonical=self.settings.canonical,
            details=self.settings.details,
            sensitivity=self.settings.checks_for("prompts"),
            # What is scored without details is a model that is being trained: its classifier is of no later use.
            cache=littune_cache() / "classifiers" if many and self.settings.details else None,
        )

    def _paired(self, texts: Sequence[Sequence[str]]) -> Result:
        without = sum(1 for its in texts if not its)
        if without == len(texts):
            fields = ",".join(self.settings.texts) or "its captions"
            raise InputError(f"{self.name} has no text in {fields}; choose other fields with texts")
        if without:
            log(f"{self.name}: {without} images have no text in the chosen fields and are left out")
        pairs = Pairs.of(self.model, self.store, texts, self.name)
        banks = self.seen.banks() if self.seen and self.settings.checks_for("hubness") else None
        result = score_retrieval(pairs, self.settings.ks, details=self.settings.details, banks=banks)

        def rescored(dropped: Sequence[int]) -> dict[str, float]:
            kept = pairs.without(dropped)
            return kept.metrics(kept.ranks(), self.settings.ks)

        return self._without_duplicates(result, rescored)

    def _paired_in(self, language: str) -> Result:
        rows, texts, english = texts_in(self.store, language)
        results = []
        for its in (texts, english):
            of_rows: list[Sequence[str]] = [()] * self.store.num_rows
            for row, of_row in zip(rows, its, strict=True):
                of_rows[row] = of_row
            pairs = Pairs.of(self.model, self.store, of_rows, self.name)
            results.append(score_retrieval(pairs, self.settings.ks, details=self.settings.details, banks=None))
        return replace(results[0], language=language).beside_english(results[1])

    def _without_duplicates(self, result: Result, rescored: Callable[[Sequence[int]], dict[str, float]]) -> Result:
        """The result with its near-duplicates of training images, and the scores without them."""
        if self.seen is None or not self.settings.checks_for("duplicates"):
            return result
        found = self.seen.duplicates(self.store)
        result = replace(result, duplicates=tuple(found.values()))
        scores = rescored(list(found)) if 0 < len(found) < self.store.num_rows else {}
        return result.with_findings("duplicates", {"found": len(found), **scores})
