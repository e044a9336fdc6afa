"""Scores a model on one set: first what could be wrong with it, then job by job."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from littune.base.errors import InputError, MissingExtraError
from littune.base.files import littune_cache
from littune.base.progress import log
from littune.evaluation.checks.probe import check_installed, cross_validated
from littune.evaluation.classification import Task, score_classification
from littune.evaluation.results import Result, ZeroShotOutcome
from littune.evaluation.retrieval import Pairs, score_retrieval
from littune.evaluation.seen import Seen
from littune.evaluation.sets.labels import Labels, labels_of
from littune.evaluation.sets.languages import class_texts_in, texts_in
from littune.evaluation.sets.registry import KnownSet
from littune.evaluation.settings import Settings
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

_MANY_PROMPTS = 1000
"""A classifier of so many prompts or more is kept."""

Job = Callable[[], Result]
Texts = Sequence[Sequence[str]]
"""The texts of each row of a store."""


@dataclass(frozen=True, kw_only=True)
class OpenedSet:
    """A set that is embedded."""

    name: str
    """What it was called."""
    store: EmbeddingStore
    known: KnownSet | None
    """The set of the paper that it is."""


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores the model on one set."""

    model: LiT
    settings: Settings
    seen: Seen | None
    opened: OpenedSet
    alone: bool
    """Whether it is the only set."""

    def jobs(self) -> list[Job]:
        """What gives the score in the set's own words, and then one for each language.

        Raises:
            InputError: the labels, texts or prompts cannot be used, or the only set has no texts in a language.
            MissingExtraError: names or templates ship in a package that is not installed, or scikit-learn is not.
        """
        return self._jobs_of_classes() if self.opened.store.classnames is not None else self._jobs_of_pairs()

    def _jobs_of_classes(self) -> list[Job]:
        if "probe" in self.settings.checks:
            check_installed()
        labels = labels_of(self.opened.store, known=self.opened.known, classnames=self.settings.own_classnames)
        of_known = self.opened.known.templates if self.opened.known else None
        templates = self.settings.prompts(of_known, self.opened.store.templates)
        jobs: list[Job] = [partial(self._classified, self._task(labels), templates)]
        for language in self.settings.languages:
            try:
                their = class_texts_in(labels.classnames, language, pattern=self.settings.classnames_pattern)
                task, english = (
                    self._task(labels.among(their.classes, names)) for names in (their.names, their.english_names)
                )
            except InputError as error:
                self._leave_out(language, error)
                continue
            prompts = self.settings.prompts(their.templates), self.settings.prompts(their.english_templates)
            jobs.append(partial(self._classified_in, language, (task, english), prompts))
        return jobs

    def _jobs_of_pairs(self) -> list[Job]:
        texts = self.opened.store.texts(self.settings.texts)
        without = sum(1 for its in texts if not its)
        fields = ",".join(self.settings.texts) or "its captions"
        jobs: list[Job] = []
        if without < len(texts):
            if without:
                log(f"{self.opened.name}: {without} images have no text in the chosen fields and are left out")
            jobs.append(partial(self._retrieved, texts))
        for language in self.settings.languages:
            try:
                jobs.append(partial(self._retrieved_in, language, *self._texts_in(language)))
            except InputError as error:
                self._leave_out(language, error)
        if not jobs:
            raise InputError(f"{self.opened.name} has no text in {fields}; choose other fields with texts")
        return jobs

    def _task(self, labels: Labels) -> Task:
        return Task(model=self.model, store=self.opened.store, labels=labels, name=self.opened.name)

    def _texts_in(self, language: str) -> tuple[Texts, Texts]:
        """Each row's texts in the language and in English, of those rows that have both, if there are any such."""
        rows, texts, english = texts_in(self.opened.store, language)
        theirs: list[Sequence[str]] = [()] * self.opened.store.num_rows
        of_english = list(theirs)
        has_english = any(english)
        for row, its, its_english in zip(rows, texts, english, strict=True):
            if its_english or not has_english:
                theirs[row], of_english[row] = its, its_english
        return theirs, of_english

    def _leave_out(self, language: str, error: InputError) -> None:
        """Of several sets, some may have no texts in a language."""
        if self.alone:
            raise InputError(f"{self.opened.name}: {error}") from error
        log(f"{self.opened.name} is not scored in {language}: {error}")

    def _classified(self, task: Task, templates: Sequence[str]) -> Result:
        result = self._classify(task, templates, details=self.settings.details)
        if self._probes():
            # The rest of the set teaches each fifth of it.
            raw = self.opened.store.take(task.rows).astype(np.float32)
            probes = {
                "linear probe": cross_validated(raw, task.first, which="linear_probe"),
                "10-shot least squares": cross_validated(raw, task.first, which="few_shot"),
            }
            result = result.with_findings("probe", probes)

        def rescored(dropped: Sequence[int]) -> dict[str, float]:
            assert isinstance(result.outcome, ZeroShotOutcome), "checks come with details"
            return task.metrics(result.outcome.ranks, ~np.isin(task.rows, dropped))

        return self._without_duplicates(result, rescored)

    def _probes(self) -> bool:
        """Whether the tower alone is probed; when all checks were asked for, only where that is possible."""
        if "probe" in self.settings.checks:
            return True
        if not self.settings.checks_for("probe"):
            return False
        try:
            check_installed()
        except MissingExtraError as error:
            log(f"{self.opened.name} is not probed: {error}")
            return False
        return True

    def _classified_in(
        self, language: str, tasks: tuple[Task, Task], templates: tuple[Sequence[str], Sequence[str]]
    ) -> Result:
        result = self._classify(tasks[0], templates[0], details=self.settings.details, sensitivity=False)
        english = self._classify(tasks[1], templates[1], details=False, sensitivity=False)
        return replace(result, language=language).beside_english(english)

    def _classify(self, task: Task, templates: Sequence[str], *, details: bool, sensitivity: bool = True) -> Result:
        many = len(task.labels.classnames) * len(templates) >= _MANY_PROMPTS
        return score_classification(
            task,
            templates,
            canonical=self.settings.canonical,
            details=details,
            sensitivity=sensitivity and self.settings.checks_for("prompts"),
            # What is scored without details is a model that is being trained: its classifier is of no later use.
            cache=littune_cache() / "classifiers" if many and self.settings.details else None,
        )

    def _retrieved(self, texts: Texts) -> Result:
        pairs = Pairs.of(self.model, self.opened.store, texts, self.opened.name)
        banks = self.seen.banks if self.seen and self.settings.checks_for("hubness") else None
        result = score_retrieval(pairs, self.settings.ks, details=self.settings.details, banks=banks)

        def rescored(dropped: Sequence[int]) -> dict[str, float]:
            kept = pairs.without(dropped)
            return kept.metrics(kept.ranks(), self.settings.ks)

        return self._without_duplicates(result, rescored)

    def _retrieved_in(self, language: str, texts: Texts, english: Texts) -> Result:
        pairs = Pairs.of(self.model, self.opened.store, texts, self.opened.name)
        result = score_retrieval(pairs, self.settings.ks, details=self.settings.details, banks=None)
        result = replace(result, language=language)
        if not any(english):
            return result
        in_english = Pairs.of(self.model, self.opened.store, english, self.opened.name)
        return result.beside_english(score_retrieval(in_english, self.settings.ks, details=False, banks=None))

    def _without_duplicates(self, result: Result, rescored: Callable[[Sequence[int]], dict[str, float]]) -> Result:
        """The result with its near-duplicates of training images, and the scores without them."""
        if self.seen is None or not self.settings.checks_for("duplicates"):
            return result
        assert result.outcome is not None, "checks come with details"
        scored = set(result.outcome.rows.tolist())
        found = {row: its for row, its in self.seen.duplicates(self.opened.store).items() if row in scored}
        scores = rescored(list(found)) if 0 < len(found) < len(scored) else {}
        result = replace(result, duplicates=tuple(found.values()))
        return result.with_findings("duplicates", {"found": len(found), **scores})
