"""Retrieval both ways, as recall@k: image→text and text→image (section 4, Appendix I.3).

``recall@k`` counts as clip-benchmark does: a text is right for the image it was written for, and an image's
query is a hit when any of its own texts is among the first k. ``recall_dedup@k`` counts a duplicate text for
every owner: where another image has the same text, that image is right for the text too, and its copy of the
text is right for this image.

Ties are never hits by luck: a wrong answer with an equal score stands ahead (``metrics``). Rows with equal
embeddings get equal scores to the last bit, wherever they stand: each distinct row is scored once.

Scores are streamed in blocks, never held as one matrix: beside the embeddings memory is O(block).
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from littune.evaluation.metrics.ranks import share_within

Adjust = Callable[[np.ndarray], np.ndarray]
"""A block of scores (queries, all answers) → those to rank by, of the same shape; rows must not see each other."""

_SCORES_IN_A_BLOCK = 1 << 24


def recall_metrics(
    images: Float[np.ndarray, "i d"],
    texts: Float[np.ndarray, "t d"],
    owners: Int[np.ndarray, " t"],
    captions: Sequence[str],
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """``text_to_image/recall@k`` and ``image_to_text/recall@k``, and the same as ``recall_dedup@k``, as fractions.

    A k beyond the number of answers is left out, for every query would be a hit.

    Args:
        images: unit rows.
        texts: unit rows.
        owners: the image that each text was written for; every image has at least one text.
        captions: the texts themselves, which say what is a duplicate.
        ks: how far down to look.
    """
    ranks = retrieval_ranks(images, texts, owners, text_groups(captions))
    answers = {"text_to_image": len(images), "image_to_text": len(texts)}
    return {
        f"{name}@{k}": share_within(values, k)
        for name, values in ranks.items()
        for k in ks
        if k <= answers[name.partition("/")[0]]
    }


def retrieval_ranks(
    images: Float[np.ndarray, "i d"],
    texts: Float[np.ndarray, "t d"],
    owners: Int[np.ndarray, " t"],
    groups: Int[np.ndarray, " t"],
    *,
    adjust: Mapping[str, Adjust] | None = None,
) -> dict[str, Int[np.ndarray, " queries"]]:
    """How many wrong answers stand ahead of the best right one, for each query, int64.

    Args:
        images: unit rows.
        texts: unit rows.
        owners: the image that each text was written for; every image has at least one text.
        groups: texts with equal numbers are duplicates of each other.
        adjust: ``text_to_image`` or ``image_to_text`` → what is done to that direction's scores before they are
            ranked, such as query-bank normalisation.

    Returns:
        ``DIRECTION/recall`` and ``DIRECTION/recall_dedup`` → ranks, for both directions.
    """
    assert np.array_equal(np.unique(owners), np.arange(len(images))), "an image without a text, or a text without one"
    own = _relations(owners, np.arange(len(texts)), len(images))
    shared = _relations(owners, groups, len(images))
    adjust = adjust or {}
    to_image, to_image_dedup = _ranks(
        texts, images, [own.text_to_image, shared.text_to_image], adjust.get("text_to_image")
    )
    to_text, to_text_dedup = _ranks(
        images, texts, [own.image_to_text, shared.image_to_text], adjust.get("image_to_text")
    )
    return {
        "text_to_image/recall": to_image,
        "image_to_text/recall": to_text,
        "text_to_image/recall_dedup": to_image_dedup,
        "image_to_text/recall_dedup": to_text_dedup,
    }


def nearest(
    queries: Float[np.ndarray, "q d"], answers: Float[np.ndarray, "a d"], k: int
) -> Int[np.ndarray, "q k_or_a"]:
    """The answers of the highest scores for each query, best first, equal scores in the answers' order; int64.

    A few at most are wanted: each of the ``k`` is another pass over the scores. All answers, where they are fewer.
    """
    k = min(k, len(answers))
    found = np.empty((len(queries), k), np.int64)
    for block, scores in _score_blocks(queries, answers):
        rows = np.arange(len(block))
        for place in range(k):
            best = scores.argmax(axis=1)
            found[block, place] = best
            scores[rows, best] = -np.inf
    return found


def text_groups(captions: Sequence[str]) -> Int[np.ndarray, " t"]:
    """A number for each text; duplicates share one. Case, white space and a closing full stop do not count."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(_plain(caption), len(numbers)) for caption in captions], dtype=np.int64)


def _plain(caption: str) -> str:
    return " ".join(caption.casefold().split()).rstrip(" .")


@dataclass(frozen=True, slots=True)
class _Lists:
    """A list of whole numbers for each row, in one array (compressed sparse rows)."""

    bounds: Int[np.ndarray, " rows_and_end"]
    numbers: Int[np.ndarray, " total"]

    @classmethod
    def from_pairs(cls, rows: Int[np.ndarray, " total"], numbers: Int[np.ndarray, " total"], num_rows: int) -> "_Lists":
        """Put each number into the list of its row."""
        ends = np.cumsum(np.bincount(rows, minlength=num_rows))
        return cls(np.concatenate([[0], ends]), numbers[np.argsort(rows, kind="stable")])

    def take(self, rows: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " taken"]]:
        """The lengths of these rows' lists, and the lists one after another."""
        first = self.bounds[rows]
        lengths = self.bounds[rows + 1] - first
        places = np.arange(lengths.sum()) + np.repeat(first - _starts(lengths), lengths)
        return lengths, self.numbers[places]


@dataclass(frozen=True, slots=True)
class _Right:
    """Which answers are right for a query: those of its groups. Expanded a block at a time."""

    groups: _Lists
    answers: _Lists

    def of(self, queries: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " total"]]:
        """How many answers are right for each of these queries, and the answers one after another."""
        num_groups, groups = self.groups.take(queries)
        num_answers, answers = self.answers.take(groups)
        return np.add.reduceat(num_answers, _starts(num_groups)), answers


@dataclass(frozen=True, slots=True)
class _Relations:
    text_to_image: _Right
    image_to_text: _Right


def _relations(owners: Int[np.ndarray, " t"], groups: Int[np.ndarray, " t"], num_images: int) -> _Relations:
    texts, num_groups = np.arange(len(owners)), int(groups.max()) + 1
    # An image with two texts of one group belongs to the group once, or its answers would be counted twice.
    members, of_groups = np.divmod(np.unique(owners.astype(np.int64) * num_groups + groups), num_groups)
    group_of_text = _Lists.from_pairs(texts, groups, len(texts))
    texts_of_group = _Lists.from_pairs(groups, texts, num_groups)
    images_of_group = _Lists.from_pairs(of_groups, members, num_groups)
    groups_of_image = _Lists.from_pairs(members, of_groups, num_images)
    return _Relations(
        text_to_image=_Right(group_of_text, images_of_group), image_to_text=_Right(groups_of_image, texts_of_group)
    )


def _ranks(
    queries: Float[np.ndarray, "q d"],
    answers: Float[np.ndarray, "a d"],
    relations: Sequence[_Right],
    adjust: Adjust | None,
) -> list[Int[np.ndarray, " q"]]:
    """The ranks under each relation, from one pass over the scores."""
    ranks = [np.empty(len(queries), np.int64) for _ in relations]
    for block, scores in _score_blocks(queries, answers):
        ranked_by = scores if adjust is None else adjust(scores)
        for relation, found in zip(relations, ranks, strict=True):
            found[block] = _block_ranks(ranked_by, *relation.of(block))
    return ranks


def _score_blocks(
    queries: Float[np.ndarray, "q d"], answers: Float[np.ndarray, "a d"]
) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n a"]]]:
    """The numbers of some queries, and their scores with all answers; equal answers have equal ones."""
    distinct, places = _distinct_rows(answers)
    step = max(1, _SCORES_IN_A_BLOCK // len(answers))
    for start in range(0, len(queries), step):
        block = np.arange(start, min(start + step, len(queries)))
        scores = queries[start : start + step] @ distinct.T
        yield block, scores if len(distinct) == len(answers) else scores[:, places]


def _block_ranks(
    scores: Float[np.ndarray, "n a"], num_right: Int[np.ndarray, " n"], right: Int[np.ndarray, " total"]
) -> Int[np.ndarray, " n"]:
    starts = _starts(num_right)
    of_right = scores[np.repeat(np.arange(len(scores)), num_right), right]
    best = np.maximum.reduceat(of_right, starts)
    # "Not below" instead of "at least", so that a NaN stands ahead too.
    not_below = scores.shape[1] - np.count_nonzero(scores < best[:, None], axis=1)
    right_not_below = ~(of_right < np.repeat(best, num_right))
    ahead: np.ndarray = not_below - np.add.reduceat(right_not_below.astype(np.int64), starts)
    return ahead


def _starts(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    starts: np.ndarray = np.cumsum(lengths) - lengths
    return starts


def _distinct_rows(rows: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, "m d"], Int[np.ndarray, " n"]]:
    """The distinct rows in order of appearance, and where each row is among them."""
    numbers: dict[bytes, int] = {}
    digests = (hashlib.sha256(row.tobytes()).digest() for row in rows)
    places = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], dtype=np.int64)
    if len(numbers) == len(rows):
        return rows, places
    _, first = np.unique(places, return_index=True)
    return rows[first], places
