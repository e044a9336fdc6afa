"""Which answers are right for which queries, and which rows are equal, as lists that are expanded a block at a time."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True, slots=True)
class Lists:
    """A list of whole numbers for each row, in one array (compressed sparse rows)."""

    bounds: Int[np.ndarray, " rows_and_end"]
    numbers: Int[np.ndarray, " total"]

    @classmethod
    def from_pairs(cls, rows: Int[np.ndarray, " total"], numbers: Int[np.ndarray, " total"], num_rows: int) -> "Lists":
        """Put each number into the list of its row."""
        ends = np.cumsum(np.bincount(rows, minlength=num_rows))
        return cls(np.concatenate([[0], ends]), numbers[np.argsort(rows, kind="stable")])

    def take(self, rows: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " taken"]]:
        """The lengths of these rows' lists, and the lists one after another."""
        first = self.bounds[rows]
        lengths = self.bounds[rows + 1] - first
        places = np.arange(lengths.sum()) + np.repeat(first - starts_of(lengths), lengths)
        return lengths, self.numbers[places]


@dataclass(frozen=True, slots=True)
class Distinct:
    """Which rows of a matrix are equal: each distinct row has a number, in order of appearance."""

    first: Int[np.ndarray, " m"]
    """Where each distinct row first stands."""
    places: Int[np.ndarray, " n"]
    """The number of each row."""


@dataclass(frozen=True, slots=True)
class Right:
    """Which answers are right for a query: those of its groups. Expanded a block at a time."""

    groups: Lists
    """For each query, the groups that it belongs to; at least one."""
    answers: Lists
    """For each group, the answers in it."""

    def of(self, queries: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " total"]]:
        """How many answers are right for each of these queries, and the answers one after another."""
        num_groups, groups = self.groups.take(queries)
        num_answers, answers = self.answers.take(groups)
        return np.add.reduceat(num_answers, starts_of(num_groups)), answers


@dataclass(frozen=True, slots=True)
class Relations:
    """A relation between texts and images, both ways."""

    text_to_image: Right
    image_to_text: Right


def relations_of(owners: Int[np.ndarray, " t"], groups: Int[np.ndarray, " t"], num_images: int) -> Relations:
    """An image and a text are right for each other where the image has a text of the text's group.

    Args:
        owners: the image that each text was written for; every image has at least one text.
        groups: the group of each text, counted from 0.
        num_images: how many images there are.
    """
    texts, num_groups = np.arange(len(owners)), int(groups.max()) + 1
    # An image with two texts of one group belongs to the group once, or its answers would be counted twice.
    members, of_groups = np.divmod(np.unique(owners.astype(np.int64) * num_groups + groups), num_groups)
    group_of_text = Lists.from_pairs(texts, groups, len(texts))
    texts_of_group = Lists.from_pairs(groups, texts, num_groups)
    images_of_group = Lists.from_pairs(of_groups, members, num_groups)
    groups_of_image = Lists.from_pairs(members, of_groups, num_images)
    return Relations(
        text_to_image=Right(group_of_text, images_of_group), image_to_text=Right(groups_of_image, texts_of_group)
    )


def distinct_rows(rows: Float[np.ndarray, "n d"]) -> Distinct:
    """Which of the rows are equal to the last bit, so that NaNs are too."""
    numbers: dict[bytes, int] = {}
    digests = (hashlib.sha256(row.tobytes()).digest() for row in rows)
    places = np.array([numbers.setdefault(digest, len(numbers)) for digest in digests], dtype=np.int64)
    return Distinct(np.unique(places, return_index=True)[1], places)


def starts_of(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Where each list starts when lists of these lengths lie one after another."""
    starts: np.ndarray = np.cumsum(lengths) - lengths
    return starts
