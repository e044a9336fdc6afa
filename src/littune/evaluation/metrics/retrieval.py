"""Retrieval both ways, as recall@k: image→text and text→image (section 4, Appendix I.3).

``recall@k`` counts as clip-benchmark does: a text is right for the image it was written for, and an image's
query is a hit when any of its own texts is among the first k. ``recall_dedup@k`` counts a duplicate text for
every owner: where another image has the same text, that image is right for the text too, and its copy of the
text is right for this image.

Ties are never hits by luck: a wrong answer with an equal score stands ahead (``metrics``). Rows with equal
embeddings get equal scores to the last bit, wherever they stand: each distinct row is scored once.

Scores are streamed in blocks, never held as one matrix: beside the embeddings memory is O(block). One matrix product
serves both directions. A block has all images for some texts, which is all that these texts need. What an image
needs is to know its best right text before the wrong ones pass by: the scores of the right pairs are few, and are
computed first.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from littune.evaluation.metrics.blocks import blocks
from littune.evaluation.metrics.ranks import highest
from littune.evaluation.metrics.relations import Distinct, Lists, Right, distinct_rows, relations_of, starts_of

Adjust = Callable[[np.ndarray], np.ndarray]
"""A block of scores (queries, all answers) → those to rank by, of the same shape; rows must not see each other."""

_SCORES_IN_A_BLOCK = 1 << 24


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
    own = relations_of(owners, np.arange(len(texts)), len(images))
    shared = relations_of(owners, groups, len(images))
    adjust = adjust or {}
    to_image = [own.text_to_image, shared.text_to_image]
    to_text = [own.image_to_text, shared.image_to_text]
    if "image_to_text" in adjust:
        of_texts = _ranks(texts, images, to_image, adjust.get("text_to_image"))
        of_images = _ranks(images, texts, to_text, adjust["image_to_text"])
    else:
        of_texts, of_images = _ranks_both_ways(texts, images, to_image, to_text, adjust.get("text_to_image"))
    return {
        "text_to_image/recall": of_texts[0],
        "image_to_text/recall": of_images[0],
        "text_to_image/recall_dedup": of_texts[1],
        "image_to_text/recall_dedup": of_images[1],
    }


def nearest(
    queries: Float[np.ndarray, "q d"], answers: Float[np.ndarray, "a d"], k: int, *, adjust: Adjust | None = None
) -> Int[np.ndarray, "q k_or_a"]:
    """The answers of the highest scores for each query, best first, equal scores in the answers' order; int64.

    All answers, where they are fewer; see ``highest``.

    Args:
        queries: unit rows.
        answers: unit rows.
        k: how many answers a query gets.
        adjust: what is done to the scores first.
    """
    k = min(k, len(answers))
    found = np.empty((len(queries), k), np.int64)
    for block, plain in _score_blocks(queries, answers, distinct_rows(answers)):
        found[block] = highest(plain if adjust is None else adjust(plain), k)
    return found


def text_groups(captions: Sequence[str]) -> Int[np.ndarray, " t"]:
    """A number for each text; duplicates share one. Case, white space and a closing full stop do not count."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(_plain(caption), len(numbers)) for caption in captions], dtype=np.int64)


def _plain(caption: str) -> str:
    return " ".join(caption.casefold().split()).rstrip(" .")


def _ranks(
    queries: Float[np.ndarray, "q d"],
    answers: Float[np.ndarray, "a d"],
    relations: Sequence[Right],
    adjust: Adjust | None,
) -> list[Int[np.ndarray, " q"]]:
    """The ranks under each relation, from one pass over the scores."""
    ranks = [np.empty(len(queries), np.int64) for _ in relations]
    for block, scores in _score_blocks(queries, answers, distinct_rows(answers)):
        ranked_by = scores if adjust is None else adjust(scores)
        for relation, found in zip(relations, ranks, strict=True):
            found[block] = _block_ranks(ranked_by, *relation.of(block))
    return ranks


def _ranks_both_ways(
    texts: Float[np.ndarray, "t d"],
    images: Float[np.ndarray, "i d"],
    to_image: Sequence[Right],
    to_text: Sequence[Right],
    adjust: Adjust | None,
) -> tuple[list[Int[np.ndarray, " t"]], list[Int[np.ndarray, " i"]]]:
    """What ``_ranks`` gives for texts and for images, from one product; ``adjust`` is for texts.

    Args:
        texts: unit rows.
        images: unit rows.
        to_image: which images are right for a text; the last of the relations holds all the others.
        to_text: the same relations the other way.
        adjust: what is done to the scores before images are ranked.
    """
    known = _RightScores.compute(texts, images, to_image[-1])
    best, right_not_below = zip(*(known.best(relation) for relation in to_text), strict=True)
    of_texts = [np.empty(len(texts), np.int64) for _ in to_image]
    of_images = [-count for count in right_not_below]
    for block, scores in _score_blocks(texts, images, known.images):
        ranked_by = scores if adjust is None else adjust(scores)
        for relation, ranks in zip(to_image, of_texts, strict=True):
            ranks[block] = _block_ranks(ranked_by, *relation.of(block))
        known.put_into(scores, block)
        for threshold, ranks in zip(best, of_images, strict=True):
            ranks += len(block) - _count_by_column(scores < threshold)
    return of_texts, of_images


@dataclass(frozen=True, slots=True)
class _RightScores:
    """The scores of right pairs, and of pairs with equal rows: computed once, they are equal to the last bit."""

    texts: Distinct
    images: Distinct
    pairs: Int[np.ndarray, " p"]
    """Sorted numbers: a distinct text's, times the number of distinct images, plus a distinct image's."""
    scores: Float[np.ndarray, " p"]
    of_text: Lists
    """For each distinct text, which of the pairs are its own."""
    equal_images: Lists
    """For each distinct image, where it stands."""

    @classmethod
    def compute(cls, texts: Float[np.ndarray, "t d"], images: Float[np.ndarray, "i d"], right: Right) -> "_RightScores":
        """The scores of all pairs of ``right``."""
        of_texts, of_images = distinct_rows(texts), distinct_rows(images)
        width, found = len(of_images.first), []
        for block in _blocks(len(texts), len(images)):
            lengths, numbers = right.of(block)
            found.append(np.unique(np.repeat(of_texts.places[block], lengths) * width + of_images.places[numbers]))
        pairs = np.unique(np.concatenate(found))
        text, image = np.divmod(pairs, width)
        scores = np.empty(len(pairs), texts.dtype)
        for block in _blocks(len(pairs), 4 * texts.shape[1]):
            rows = texts[of_texts.first[text[block]]], images[of_images.first[image[block]]]
            scores[block] = np.einsum("pd,pd->p", *rows)
        return cls(
            texts=of_texts,
            images=of_images,
            pairs=pairs,
            scores=scores,
            of_text=Lists.from_pairs(text, np.arange(len(pairs)), len(of_texts.first)),
            equal_images=Lists.from_pairs(of_images.places, np.arange(len(images)), width),
        )

    def best(self, right: Right) -> tuple[Float[np.ndarray, " i"], Int[np.ndarray, " i"]]:
        """Each image's best right score, and how many right texts are not below it."""
        num_images, width = len(self.images.places), len(self.images.first)
        best, counts = np.empty(num_images, self.scores.dtype), np.empty(num_images, np.int64)
        for block in _blocks(num_images, len(self.texts.places)):
            lengths, texts = right.of(block)
            pairs = self.texts.places[texts] * width + np.repeat(self.images.places[block], lengths)
            best[block], counts[block] = _best(self.scores[np.searchsorted(self.pairs, pairs)], lengths)
        return best, counts

    def put_into(self, scores: Float[np.ndarray, "n i"], block: Int[np.ndarray, " n"]) -> None:
        """Put what is known of these texts in the place of what the product made of it."""
        num_pairs, pairs = self.of_text.take(self.texts.places[block])
        num_images, images = self.equal_images.take(self.pairs[pairs] % len(self.images.first))
        rows = np.repeat(np.repeat(np.arange(len(block)), num_pairs), num_images)
        scores[rows, images] = np.repeat(self.scores[pairs], num_images)


def _score_blocks(
    queries: Float[np.ndarray, "q d"], answers: Float[np.ndarray, "a d"], distinct: Distinct
) -> Iterator[tuple[Int[np.ndarray, " n"], Float[np.ndarray, "n a"]]]:
    """The numbers of some queries, and their scores with all answers; equal answers have equal ones."""
    all_differ = len(distinct.first) == len(answers)
    transposed = (answers if all_differ else answers[distinct.first]).T
    for block in _blocks(len(queries), len(answers)):
        scores = queries[block[0] : block[-1] + 1] @ transposed
        yield block, scores if all_differ else scores[:, distinct.places]


def _blocks(num_rows: int, width: int) -> Iterator[Int[np.ndarray, " n"]]:
    """The numbers of rows, as many at a time as make a block of this width."""
    for block in blocks(num_rows, width, _SCORES_IN_A_BLOCK):
        yield np.arange(block.start, block.stop)


def _block_ranks(
    scores: Float[np.ndarray, "n a"], num_right: Int[np.ndarray, " n"], right: Int[np.ndarray, " total"]
) -> Int[np.ndarray, " n"]:
    best, right_not_below = _best(scores[np.repeat(np.arange(len(scores)), num_right), right], num_right)
    # "Not below" instead of "at least", so that a NaN stands ahead too.
    not_below = scores.shape[1] - np.count_nonzero(scores < best[:, None], axis=1)
    ahead: np.ndarray = not_below - right_not_below
    return ahead


def _best(
    of_right: Float[np.ndarray, " total"], num_right: Int[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Each query's best right score, and how many of its right ones are not below that."""
    starts = starts_of(num_right)
    best = np.maximum.reduceat(of_right, starts)
    not_below = ~(of_right < np.repeat(best, num_right))
    return best, np.add.reduceat(not_below.astype(np.int64), starts)


def _count_by_column(mask: Bool[np.ndarray, "n m"]) -> Int[np.ndarray, " m"]:
    """How many are true. Bytes are added many at a time, and 255 fit into one."""
    counts = np.zeros(mask.shape[1], np.int64)
    for start in range(0, len(mask), 255):
        counts += np.add.reduce(mask[start : start + 255].view(np.uint8), axis=0, dtype=np.uint8)
    return counts
