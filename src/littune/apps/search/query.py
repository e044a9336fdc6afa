"""Query: what is searched for, and the unit vector that it becomes in the shared space."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from littune.base.errors import InputError
from littune.model.lit import LiT
from littune.model.pictures import Picture

_NOTHING = 1e-6
_AWAY = 0.5
"""How much of the unwanted words' mean direction is taken from the query's.

Of the ten photographs found for each of twelve queries such as "dog" without "snow", among 700 of Flickr8k: nothing
subtracted, 19 % had a caption that names what is not wanted and 78 % one that names what is; a quarter, 12 and 76 %; a
half, 5 and 74 %; the whole, 2 and 66 %. Projecting the query onto what is orthogonal to it: 15 and 78 %.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Words, a picture, or both; and what is not wanted.

    With unit vectors for all, the query is ``unit(weight * image + (1 - weight) * text)``. From that, half the unit
    mean of what is not wanted is subtracted, and the rest is of unit length again: a picture of what is not wanted
    falls behind one of the same that is not, and nothing is ruled out altogether.

    Raises:
        InputError: there are neither words nor a picture, the weight is not from 0 to 1, or unwanted words are blank.
    """

    text: str = ""
    image: Picture | None = None
    weight: float = 0.5
    """The picture's share where there are words too."""
    without: tuple[str, ...] = ()
    """Words for what is not wanted."""

    def __post_init__(self) -> None:
        if self.image is None and not self.text.strip():
            raise InputError("the query is blank; give some words or a picture to search for")
        if not 0 <= self.weight <= 1:
            raise InputError(f"weight = {self.weight} is not usable: the picture's share is from 0 to 1")
        if not all(words.strip() for words in self.without):
            raise InputError("what is not wanted is blank; give some words, or leave it out")


def vectors(model: LiT, queries: Sequence[str | Query]) -> Float32[np.ndarray, "n dim"]:
    """The queries in the model's space, of unit length; all texts are encoded together, and so are all pictures.

    Raises:
        InputError: a query is blank, or its parts cancel each other out.
        LittuneError: a picture cannot be read.
    """
    asked = [query if isinstance(query, Query) else Query(text=query) for query in queries]
    texts = [text for query in asked for text in (*_words(query), *query.without)]
    pictures = [query.image for query in asked if query.image is not None]
    of_texts, of_pictures = iter(_texts(model, texts)), iter(_pictures(model, pictures))
    rows = [np.zeros((0, model.dim), np.float32)]
    for query in asked:
        wanted = [(1 - query.weight, next(of_texts)) for _ in _words(query)]
        wanted += [(query.weight, next(of_pictures)) for _ in range(query.image is not None)]
        row = wanted[0][1] if len(wanted) == 1 else _sum(wanted, "the picture and the words cancel each other out")
        unwanted = [next(of_texts) for _ in query.without]
        if unwanted:
            away = _sum([(1, one) for one in unwanted], "what is not wanted cancels itself out")
            row = _sum([(1, row), (-_AWAY, away)], "nothing is left of the query")
        rows.append(row[None])
    return np.concatenate(rows)


def _words(query: Query) -> tuple[str, ...]:
    return (query.text,) if query.text.strip() else ()


def _texts(model: LiT, texts: Sequence[str]) -> Float32[np.ndarray, "n dim"]:
    return model.encode_text(texts) if texts else np.zeros((0, model.dim), np.float32)


def _pictures(model: LiT, pictures: Sequence[Picture]) -> Float32[np.ndarray, "n dim"]:
    # Without pictures the image tower, which may be large or unknown, is left unloaded.
    return model.encode_image(pictures) if pictures else np.zeros((0, model.dim), np.float32)


def _sum(parts: Sequence[tuple[float, np.ndarray]], problem: str) -> Float32[np.ndarray, " dim"]:
    """The unit vector along a weighted sum."""
    total: np.ndarray = np.stack([share * row for share, row in parts]).sum(axis=0, dtype=np.float32)
    length = np.float32(np.linalg.norm(total))
    if length < _NOTHING:
        raise InputError(f"the query cannot be used: {problem}")
    unit: np.ndarray = total / length
    return unit
