"""Zero-shot classification of a labelled set (section 4; big_vision's protocol, clip-benchmark's numbers)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from littune.base.errors import InputError
from littune.evaluation.checks.sensitivity import prompt_sensitivity
from littune.evaluation.metrics.blocks import blocks
from littune.evaluation.metrics.calibration import cross_fitted, expected_calibration_error
from littune.evaluation.metrics.ranks import highest, mean_per_class, ranks_of_best, share_within
from littune.evaluation.metrics.relations import distinct_rows
from littune.evaluation.per_image import intervals_of
from littune.evaluation.results import Result, ZeroShotOutcome
from littune.evaluation.sets.labels import Labels
from littune.evaluation.sets.stores import project
from littune.model.classifier_cache import classifier_of
from littune.model.lit import LiT
from littune.store.store import EmbeddingStore

KS = (1, 5)
"""The k of accuracy@k."""

_SHOWN = 5
_COSINES_IN_A_BLOCK = 1 << 24
# Of more images than make so many cosines, every second (third, …) one is calibrated.
_MAX_COSINES = 1 << 27


@dataclass(frozen=True, kw_only=True)
class Task:
    """The images of a labelled set that have a right class, to be classified by any classifier.

    Raises:
        InputError: none has.
    """

    model: LiT
    store: EmbeddingStore
    labels: Labels
    name: str

    def __post_init__(self) -> None:
        if not len(self.rows):
            classes = len(self.labels.classnames)
            raise InputError(f"{self.name} has no image whose right class is among its {classes} class names")

    @cached_property
    def rows(self) -> Int64[np.ndarray, " n"]:
        """The store's row of each image."""
        return np.flatnonzero([bool(right) for right in self.labels.right]).astype(np.int64)

    @cached_property
    def first(self) -> Int64[np.ndarray, " n"]:
        """Each image's right class; the first of several."""
        return np.array([self.labels.right[row][0] for row in self.rows], dtype=np.int64)

    def cosines(
        self, classifier: Float[np.ndarray, "classes d"]
    ) -> Iterator[tuple[slice, Float32[np.ndarray, "block classes"]]]:
        """Which images, and theirs with every class, a block at a time; classes of equal rows have equal ones."""
        distinct, start = distinct_rows(classifier), 0
        transposed = classifier[distinct.first].T
        for images in project(self.model, self.store):
            first, end = np.searchsorted(self.rows, (start, start + len(images))).tolist()
            for part in blocks(end - first, len(classifier), _COSINES_IN_A_BLOCK):
                block = slice(first + part.start, first + part.stop)
                cosines = images[self.rows[block] - start] @ transposed
                yield block, cosines if len(distinct.first) == len(classifier) else cosines[:, distinct.places]
            start += len(images)

    def right(self, block: slice | Int64[np.ndarray, " block"]) -> Bool[np.ndarray, "block classes"]:
        """Which classes are right for these images."""
        rows = self.rows[block]
        mask = np.zeros((len(rows), len(self.labels.classnames)), dtype=bool)
        for place, row in enumerate(rows):
            mask[place, list(self.labels.right[row])] = True
        return mask

    def ranks(self, classifier: Float[np.ndarray, "classes d"]) -> Int64[np.ndarray, " n"]:
        """How many wrong classes stand ahead of the best right one."""
        ranks = np.empty(len(self.rows), np.int64)
        for block, cosines in self.cosines(classifier):
            ranks[block] = ranks_of_best(cosines, self.right(block))
        return ranks

    def metrics(
        self, ranks: Int64[np.ndarray, " n"], among: Bool[np.ndarray, " n"] | slice = slice(None)
    ) -> dict[str, float]:
        """``accuracy@k`` and the mean over the classes, of all images or of those ``among`` them."""
        ranks, labels = ranks[among], self.first[among]
        metrics = {f"accuracy@{k}": share_within(ranks, k) for k in KS if k <= len(self.labels.classnames)}
        return {**metrics, "mean_per_class_accuracy": mean_per_class(ranks, labels)}


def score_classification(
    task: Task, templates: Sequence[str], *, canonical: bool, details: bool, sensitivity: bool, cache: Path | None
) -> Result:
    """Classify each image that has a right class.

    Args:
        task: the images and their classes.
        templates: what the class names are put into.
        canonical: whether to lower-case the prompts and strip their punctuation.
        details: whether to go beyond the scores: intervals, calibration, what came out for each image.
        sensitivity: whether to score each template alone, and templates of random words.
        cache: the folder in which classifiers are kept; None for nowhere.
    """
    classnames = task.labels.classnames
    # A text's last digits hang on what it is embedded with: classes of one name share a direction, and so tie.
    places = {name: place for place, name in enumerate(dict.fromkeys(classnames))}
    directions = classifier_of(task.model, list(places), templates, canonical=canonical, cache=cache)
    classifier = directions[[places[name] for name in classnames]]
    ranks = task.ranks(classifier)
    result = Result(
        data=task.name,
        task="zero_shot",
        num_images=len(ranks),
        metrics=task.metrics(ranks),
        store=task.store,
    )
    if details:
        outcome, scale = _outcome(task, classifier, ranks)
        findings = {"calibration": _calibration(task.model, outcome, scale)}
        result = replace(result, outcome=outcome, intervals=intervals_of(outcome, result.metrics), findings=findings)
    if sensitivity:
        found = prompt_sensitivity(
            task.model.encode_text,
            classnames,
            templates,
            lambda classifier: share_within(task.ranks(classifier), 1),
            canonical=canonical,
        )
        result = replace(result, findings={**result.findings, "prompts": found})
    return result


def _outcome(
    task: Task, classifier: Float[np.ndarray, "classes d"], ranks: Int64[np.ndarray, " n"]
) -> tuple[ZeroShotOutcome, float]:
    """What came out for each image, and the factor on the cosines that fits best."""
    n, classes = len(task.rows), len(task.labels.classnames)
    stride = -(-n * classes // _MAX_COSINES)
    shown = min(_SHOWN, classes)
    top, probabilities = np.empty((n, shown), np.int64), np.empty((n, shown), np.float32)
    chosen = np.arange(0, n, stride)
    kept = np.empty((len(chosen), classes), np.float32)
    for block, cosines in task.cosines(classifier):
        top[block] = highest(cosines, shown)
        probabilities[block] = np.take_along_axis(_softmax(task.model.logit_scale * cosines), top[block], axis=1)
        inside = slice(*np.searchsorted(chosen, (block.start, block.stop)))
        kept[inside] = cosines[chosen[inside] - block.start]
    calibrated = np.full(n, np.nan, np.float32)
    several = any(len(task.labels.right[row]) > 1 for row in task.rows[chosen])
    right = task.right(chosen) if several else task.first[chosen]
    calibrated[chosen], scale = cross_fitted(kept, right)
    keys = task.store.keys()
    outcome = ZeroShotOutcome(
        keys=[keys[row] for row in task.rows],
        rows=task.rows,
        classnames=task.labels.classnames,
        labels=task.first,
        ranks=ranks,
        top=top,
        probabilities=probabilities,
        calibrated=calibrated,
    )
    return outcome, scale


def _calibration(model: LiT, outcome: ZeroShotOutcome, scale: float) -> dict[str, float]:
    right, known = outcome.ranks < 1, ~np.isnan(outcome.calibrated)
    return {
        "ece": expected_calibration_error(outcome.probabilities[:, 0], right),
        "temperature": model.logit_scale,
        "ece, temperature learned": expected_calibration_error(outcome.calibrated[known], right[known]),
        "learned temperature": scale,
    }


def _softmax(logits: Float[np.ndarray, "n classes"]) -> Float[np.ndarray, "n classes"]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
