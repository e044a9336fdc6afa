"""Rows → global batches.

A row is one (image, text) pair of the training set. Rows are visited in an endless stream of epochs, each in
an order of its own, and the stream is cut into batches of one size: the last batch of an epoch goes on into
the next, so nothing is dropped and no batch is short. A batch is a pure function of seed and step, so a run is
resumed by its step alone.

In a batch each image and each text stands once, however many rows drew it, and every text that belongs to an
image is its positive, also where another row, or another image with the same text, brought it in.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One global batch.

    Attributes:
        images: the distinct images' numbers, ascending, (i,).
        texts: the distinct texts' numbers, ascending, (t,).
        positives: every pair (position in ``images``, position in ``texts``) that belongs together, int64.
    """

    images: Indices
    texts: Indices
    positives: Int[Tensor, "p 2"]


class Batches:
    """The batches of a training set, by step.

    Args:
        row_image: each row's image, int64 (rows,); at least one row.
        row_text: each row's text, int64 (rows,).
        batch_size: rows in a batch; where there are fewer rows in an epoch, a batch is an epoch.
        seed: decides the order of every epoch.
        row_weight: how many times an epoch visits each row, float (rows,); 1 by default. Of n rows with weight
            w, an epoch visits round(w · n): each floor(w) times, and a fresh random share of them once more.
    """

    def __init__(
        self,
        *,
        row_image: Indices,
        row_text: Indices,
        batch_size: int,
        seed: int,
        row_weight: npt.NDArray[np.float64] | None = None,
    ) -> None:
        assert len(row_image) == len(row_text) > 0, "a training set has rows"
        self._seed = seed
        self._rows = np.stack([row_image, row_text], axis=1)
        self._groups = _by_weight(np.ones(len(row_image)) if row_weight is None else row_weight)
        self.rows_per_epoch = sum(round(weight * len(rows)) for weight, rows in self._groups)
        assert self.rows_per_epoch > 0, "the weights visit at least one row"
        self.batch_size = min(batch_size, self.rows_per_epoch)
        self._texts_of, self._first = _texts_by_image(self._rows)
        # A batch reaches into at most two epochs.
        self._order = lru_cache(maxsize=2)(self._order_of)

    def num_steps(self, epochs: float) -> int:
        """How many batches make up so many epochs, at least 1."""
        return max(1, round(epochs * self.rows_per_epoch / self.batch_size))

    def epoch_of(self, step: int) -> float:
        """How many epochs have been visited before the batch of this step."""
        return step * self.batch_size / self.rows_per_epoch

    def at(self, step: int) -> Batch:
        """The batch of this step, counted from 0."""
        epoch, start = divmod(step * self.batch_size, self.rows_per_epoch)
        rows = self._order(epoch)[start : start + self.batch_size]
        if len(rows) < self.batch_size:
            rows = np.concatenate([rows, self._order(epoch + 1)[: self.batch_size - len(rows)]])
        images, texts = np.unique(self._rows[rows, 0]), np.unique(self._rows[rows, 1])
        return Batch(images=images, texts=texts, positives=torch.from_numpy(self._positives(images, texts)))

    def _order_of(self, epoch: int) -> Indices:
        random = np.random.default_rng([self._seed, epoch])
        visits = [_visits(rows, weight, random) for weight, rows in self._groups]
        return random.permutation(np.concatenate(visits))

    def _positives(self, images: Indices, texts: Indices) -> Indices:
        counts = self._first[images + 1] - self._first[images]
        image_positions = np.repeat(np.arange(len(images)), counts)
        # The k-th text of an image lies k places after its first.
        starts = self._first[images] - (np.cumsum(counts) - counts)
        wanted = self._texts_of[np.repeat(starts, counts) + np.arange(counts.sum())]
        text_positions = np.searchsorted(texts, wanted)
        found = texts[np.minimum(text_positions, len(texts) - 1)] == wanted
        return np.stack([image_positions[found], text_positions[found]], axis=1)


def _by_weight(weights: npt.NDArray[np.float64]) -> list[tuple[float, Indices]]:
    values, which = np.unique(weights, return_inverse=True)
    return [(float(value), np.flatnonzero(which == number)) for number, value in enumerate(values)]


def _visits(rows: Indices, weight: float, random: np.random.Generator) -> Indices:
    whole, rest = divmod(round(weight * len(rows)), len(rows))
    return np.concatenate([np.tile(rows, whole), random.choice(rows, rest, replace=False)])


def _texts_by_image(rows: npt.NDArray[np.int64]) -> tuple[Indices, Indices]:
    """Every image's distinct texts, one image after the other, and where each image's begin (one more than images)."""
    num_texts = rows[:, 1].max() + 1
    images, texts = np.divmod(np.unique(rows[:, 0] * num_texts + rows[:, 1]), num_texts)
    return texts, np.searchsorted(images, np.arange(images[-1] + 2))
