"""What an evaluation found on one set, as data; scores are fractions."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from littune.evaluation.metrics.uncertainty import Interval as Interval
from littune.store.store import EmbeddingStore

DIRECTIONS = {"text_to_image": "text → image", "image_to_text": "image → text"}
"""What the names of retrieval's metrics begin with, and the same for people."""

NORMALISED = "query-bank normalised"
IN_ENGLISH = "the same images in English"
SHARE_OF_ENGLISH = "share of the English score"


@dataclass(frozen=True, kw_only=True)
class ZeroShotOutcome:
    """What came out for each image of a labelled set; images without a right class are left out."""

    keys: Sequence[str]
    rows: Int64[np.ndarray, " n"]
    """The store's row of each image."""
    classnames: Sequence[str]
    labels: Int64[np.ndarray, " n"]
    """The right class; the first of several."""
    ranks: Int64[np.ndarray, " n"]
    """How many wrong classes stand ahead of the best right one."""
    top: Int64[np.ndarray, "n k"]
    """The classes of the highest cosines, at most five, best first."""
    probabilities: Float32[np.ndarray, "n k"]
    """Theirs, under the model's own temperature."""
    calibrated: Float32[np.ndarray, " n"]
    """The likeliest class's probability under a temperature that was learned on the other half of the images."""

    def confusions(self, most: int) -> list[tuple[int, int, int]]:
        """The numbers of a right class and of one that it was taken for, and of how many images; most first.

        An image with several right classes counts for the first; none where any of them was chosen.
        """
        wrong = (self.ranks > 0) & (self.labels != self.top[:, 0])
        pairs, counts = np.unique(np.stack([self.labels, self.top[:, 0]], 1)[wrong], axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:most]
        return [
            (right, taken, count)
            for (right, taken), count in zip(pairs[order].tolist(), counts[order].tolist(), strict=True)
        ]

    def confused(self, most: int = 20) -> list[dict[str, object]]:
        """``confusions`` as JSON values: ``right``, ``taken_for`` and ``images``."""
        return [
            {"right": self.classnames[right], "taken_for": self.classnames[taken], "images": count}
            for right, taken, count in self.confusions(most)
        ]


@dataclass(frozen=True, kw_only=True)
class RetrievalOutcome:
    """What came out for each image and each text of a set of pairs; images without a text are left out."""

    keys: Sequence[str]
    rows: Int64[np.ndarray, " i"]
    """The store's row of each image."""
    captions: Sequence[str]
    owners: Int64[np.ndarray, " t"]
    """The image that each text was written for."""
    ranks: Mapping[str, Int64[np.ndarray, " _"]]
    """``text_to_image/recall``, ``image_to_text/recall`` and the same as ``…/recall_dedup``: how many wrong answers
    stand ahead of the best right one."""
    top_images: Int64[np.ndarray, "t k"]
    """For each text the nearest images, at most five, best first."""
    top_texts: Int64[np.ndarray, "i k"]
    """For each image the nearest texts, at most five, best first."""


Outcome = ZeroShotOutcome | RetrievalOutcome


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """An image of an evaluation set that (nearly) lies in a training store too."""

    key: str
    seen_key: str
    """The image in the training store."""
    seen_in: str
    """The training store."""
    cosine: float
    """Of the two embeddings, centred on the training store's mean; 1 for the same picture."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The scores on one set."""

    data: str
    """The set, as it was named."""
    task: Literal["zero_shot", "retrieval"]
    language: str = ""
    """The language of the texts, where one was asked for."""
    num_images: int
    num_texts: int | None = None
    """For retrieval, how many texts there are; a text that several images have counts for each."""
    metrics: Mapping[str, float]
    """Name → fraction: ``accuracy@1``, ``text_to_image/recall@5``, …"""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """Name → 95 % bootstrap interval, images resampled."""
    findings: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What else was found, by subject: ``calibration``, ``hubness``, ``prompts``, ``probe``, …"""
    duplicates: Sequence[Duplicate] = ()
    outcome: Outcome | None = field(default=None, compare=False, repr=False)
    """What came out for each image; not in the JSON."""
    store: EmbeddingStore | None = field(default=None, compare=False, repr=False)
    """Where the images' embeddings lie."""

    def to_dict(self) -> dict[str, object]:
        """The result as JSON values; what is empty is left out."""
        about: dict[str, object] = {"data": self.data, "task": self.task, "language": self.language}
        about |= {"num_images": self.num_images, "num_texts": self.num_texts, "metrics": dict(self.metrics)}
        about["intervals"] = {name: list(interval) for name, interval in self.intervals.items()}
        about["findings"] = {name: dict(found) for name, found in self.findings.items()}
        about["duplicates"] = [asdict(duplicate) for duplicate in self.duplicates]
        if isinstance(self.outcome, ZeroShotOutcome):
            about["confused"] = self.outcome.confused()
        return {name: value for name, value in about.items() if value not in ("", None, {}, [])}

    def with_findings(self, subject: str, found: Mapping[str, float]) -> "Result":
        """The result with one more subject among its findings."""
        return replace(self, findings={**self.findings, subject: found})

    def beside_english(self, english: "Result") -> "Result":
        """The result with the scores on the same images in English, and its share of each."""
        of_english = {name: value for name, value in english.metrics.items() if name in self.metrics}
        share = {name: self.metrics[name] / value for name, value in of_english.items() if value}
        return self.with_findings(IN_ENGLISH, of_english).with_findings(SHARE_OF_ENGLISH, share)
