"""Hubs: answers that are near to everything, and so are found for queries that they have nothing to do with.

How often each answer is among the k nearest of a query (its k-occurrence) would be alike for all answers without
hubs; the skewness of that distribution says how far from it a space is (Radovanović et al. 2010). A bank of queries
from the training data tells which answers are hubs, and by how much to mark them down (Bogolin et al. 2022).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from littune.evaluation.metrics.blocks import blocks
from littune.evaluation.metrics.relations import distinct_rows

_SCORES_IN_A_BLOCK = 1 << 24


def k_occurrence(top: Int[np.ndarray, "queries k"], num_answers: int) -> Int64[np.ndarray, " answers"]:
    """How many queries have each answer among their k nearest.

    Args:
        top: the nearest answers of each query.
        num_answers: how many answers there are, those that are never found included.
    """
    return np.bincount(top.ravel(), minlength=num_answers).astype(np.int64)


def skewness(occurrence: Int[np.ndarray, " answers"]) -> float:
    """The third standardised moment: 0 where all answers are found alike, large where a few are found for most.

    Returns:
        A number without unit; 0 where the counts are all the same, NaN where there are none.
    """
    if not len(occurrence):
        return np.nan
    deviations = occurrence - occurrence.mean()
    variance = np.mean(deviations**2)
    return float(np.mean(deviations**3) / variance**1.5) if variance else 0.0


@dataclass(frozen=True, kw_only=True)
class QueryBank:
    """What a bank of queries finds among some answers: the dynamic inverted softmax of query-bank normalisation.

    The bank's queries must be none of those that are scored, or their answers would leak; take training data.
    """

    normalisers: Float64[np.ndarray, " answers"]
    """For each answer the log of the sum of exp(beta × cosine) over the bank."""
    active: Bool[np.ndarray, " answers"]
    """Which answers are the nearest of a query in the bank (the activation set)."""
    beta: float
    """The inverse temperature."""

    @classmethod
    def of(cls, bank: Float[np.ndarray, "b d"], answers: Float[np.ndarray, "a d"], beta: float = 20.0) -> "QueryBank":
        """Score a bank's queries with each answer, in blocks: beside the embeddings memory is O(block + answers).

        Args:
            bank: unit rows.
            answers: unit rows; equal rows are marked down alike, to the last bit.
            beta: the inverse temperature; 20 is the paper's.
        """
        assert len(bank), "a bank without queries"
        distinct = distinct_rows(answers)
        transposed = answers[distinct.first].T
        normalisers = np.full(len(distinct.first), -np.inf)
        active = np.zeros(len(distinct.first), dtype=bool)
        for block in blocks(len(bank), len(distinct.first), _SCORES_IN_A_BLOCK):
            scores = bank[block] @ transposed
            active[scores.argmax(axis=1)] = True
            best = scores.max(axis=0)
            scores -= best
            scores *= beta
            sums = np.exp(scores, out=scores).sum(axis=0, dtype=np.float64)
            normalisers = np.logaddexp(normalisers, beta * best.astype(np.float64) + np.log(sums))
        return cls(normalisers=normalisers[distinct.places], active=active[distinct.places], beta=beta)

    def adjust(self, scores: Float[np.ndarray, "n answers"]) -> Float[np.ndarray, "n answers"]:
        """Mark hubs down for the queries whose nearest answer the bank finds too; leave the others as they are.

        Only the order within a row means anything afterwards.

        Args:
            scores: cosines of some queries with all answers.
        """
        hubs = self.active[scores.argmax(axis=1)]
        adjusted = scores.copy()
        adjusted[hubs] = self.beta * scores[hubs] - self.normalisers.astype(scores.dtype)
        return adjusted
