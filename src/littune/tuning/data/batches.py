"""Rows → global batches.

A row is one (image, text) pair of the training set. Rows are visited in an endless stream of epochs, each in
an order of its own, and the stream is cut into batches of one size: the last batch of an epoch goes on into
the next, so nothing is dropped and no batch is short. A batch is a pure function of seed and step, so a run is
resumed by its step alone.

In a batch each image and each text stands once, however many rows drew it, and every text that belongs to an
image is its positive, also where another row, or another image with the same text, brought it in.

An image with several texts is visited once with each of them, or once in an epoch with one that is drawn or with
all of them.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int
from torch import Tensor

from littune.base.distributed import Ranks
from littune.config import Captions

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

    def shared(self, ranks: Ranks, text_lengths: Indices) -> tuple["Batch", Indices, Indices]:
        """Share a batch out: each rank takes images and texts, the texts of about as many tokens as the others.

        Args:
            ranks: among whom.
            text_lengths: the tokens of every text of the training set, (texts,).

        Returns:
            The batch in the order of the ranks' shares, rank after rank; this rank's images; its texts.
        """
        if ranks.size == 1:
            return self, self.images, self.texts
        by_length = np.argsort(-text_lengths[self.texts], kind="stable")
        dealt = [by_length[rank :: ranks.size] for rank in range(ranks.size)]
        order = np.concatenate(dealt)
        places = torch.from_numpy(np.argsort(order))
        positives = torch.stack([self.positives[:, 0], places[self.positives[:, 1]]], dim=1)
        batch = Batch(images=self.images, texts=self.texts[order], positives=positives)
        return batch, self.images[ranks.share(len(self.images))], self.texts[dealt[ranks.rank]]


class Batches:
    """The batches of a training set, by step.

    Args:
        row_image: each row's image, int64 (rows,); at least one row.
        row_text: each row's text, int64 (rows,).
        batch_size: rows in a batch; where there are fewer rows in an epoch, a batch is an epoch.
        seed: decides the order of every epoch.
        row_weight: how many times an epoch visits each row, float (rows,); 1 by default. Of n rows with weight
            w, an epoch visits round(w · n): each floor(w) times, and a fresh random share of them once more.
            Where images are visited, the weight is that of an image's first row.
        captions: visit every row ("each"), or every image with one of its texts, drawn anew each time ("one"), or
            with all of them ("all"). A batch is of ``batch_size`` visits.
    """

    def __init__(
        self,
        *,
        row_image: Indices,
        row_text: Indices,
        batch_size: int,
        seed: int,
        row_weight: npt.NDArray[np.float64] | None = None,
        captions: Captions = "each",
    ) -> None:
        assert len(row_image) == len(row_text) > 0, "a training set has rows"
        self._seed = seed
        self._captions = captions
        self._rows = np.stack([row_image, row_text], axis=1)
        weights = np.ones(len(row_image)) if row_weight is None else row_weight
        self._texts_of, self._first = _texts_by_image(self._rows)
        visited = np.arange(len(row_image))
        if captions != "each":
            visited, firsts = np.unique(row_image, return_index=True)
            weights = weights[firsts]
        self._groups = [(weight, visited[of_it]) for weight, of_it in _by_weight(weights)]
        self.rows_per_epoch = sum(round(weight * len(rows)) for weight, rows in self._groups)
        assert self.rows_per_epoch > 0, "the weights visit at least one row"
        self.batch_size = min(batch_size, self.rows_per_epoch)
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
        return self._batch(self._visits_of(step))

    def parts(self, step: int, count: int) -> list[Batch]:
        """The batch of this step cut into ``count`` batches of about one size."""
        visits = self._visits_of(step)
        return [self._batch(visits[Ranks(rank=part, size=count).share(len(visits))]) for part in range(count)]

    def _visits_of(self, step: int) -> Indices:
        """Pairs of (image, text); where all texts of an image are wanted, (image, -1)."""
        epoch, start = divmod(step * self.batch_size, self.rows_per_epoch)
        visits = self._order(epoch)[start : start + self.batch_size]
        if len(visits) < self.batch_size:
            visits = np.concatenate([visits, self._order(epoch + 1)[: self.batch_size - len(visits)]])
        return visits

    def _batch(self, visits: npt.NDArray[np.int64]) -> Batch:
        images, texts = np.unique(visits[:, 0]), np.unique(visits[:, 1])
        if self._captions == "all":
            starts, counts = self._span(images)
            texts = np.unique(self._texts_of[_ranges(starts, counts)])
        return Batch(images=images, texts=texts, positives=torch.from_numpy(self._positives(images, texts)))

    def _order_of(self, epoch: int) -> npt.NDArray[np.int64]:
        random = np.random.default_rng([self._seed, epoch])
        visits = [_visits(rows, weight, random) for weight, rows in self._groups]
        order = random.permutation(np.concatenate(visits))
        if self._captions == "each":
            pairs: npt.NDArray[np.int64] = self._rows[order]
            return pairs
        if self._captions == "all":
            return np.stack([order, np.full_like(order, -1)], axis=1)
        starts, counts = self._span(order)
        return np.stack([order, self._texts_of[starts + random.integers(0, counts)]], axis=1)

    def _span(self, images: Indices) -> tuple[Indices, Indices]:
        """Where the texts of these images begin in ``_texts_of``, and how many they are."""
        return self._first[images], self._first[images + 1] - self._first[images]

    def _positives(self, images: Indices, texts: Indices) -> Indices:
        starts, counts = self._span(images)
        image_positions = np.repeat(np.arange(len(images)), counts)
        wanted = self._texts_of[_ranges(starts, counts)]
        text_positions = np.searchsorted(texts, wanted)
        found = texts[np.minimum(text_positions, len(texts) - 1)] == wanted
        return np.stack([image_positions[found], text_positions[found]], axis=1)


def _ranges(starts: Indices, counts: Indices) -> Indices:
    """The numbers from each start on, as many as its count, one range after the other."""
    return np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())


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
