"""A zero-shot classifier: class names × templates → one direction per class (section 4; big_vision's protocol).

Texts' embeddings are normalised, averaged over the templates, and normalised again; an image belongs to
the class of the highest cosine.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from littune.base.errors import InputError
from littune.model.prompts import canonicalize, check_templates, fill

EncodeText = Callable[[Sequence[str]], np.ndarray]
"""Texts → float32 (n, d), a row for each."""

# So many are well sorted by length, and their embeddings are still small beside what a text tower needs to run.
_TEXTS_AT_ONCE = 1 << 14


def zero_shot_classifier(
    encode_text: EncodeText, classnames: Sequence[str], templates: Sequence[str], *, canonical: bool = False
) -> Float[np.ndarray, "classes d"]:
    """One unit row for each class, float32.

    Args:
        encode_text: it is called with every template of many classes at once, so that it can sort by length.
        classnames: the names, at least one.
        templates: at least one, each with ``{}`` where the name goes.
        canonical: whether to lower-case the texts and strip their punctuation.

    Raises:
        InputError: there are no class names or no templates, or a template has no ``{}``.
    """
    texts = prompts(classnames, templates, canonical=canonical)
    step = max(1, _TEXTS_AT_ONCE // len(templates)) * len(templates)
    chunks = [texts[start : start + step] for start in range(0, len(texts), step)]
    return _unit(np.concatenate([_means(_unit(encode_text(chunk)), len(templates)) for chunk in chunks]))


def prompts(classnames: Sequence[str], templates: Sequence[str], *, canonical: bool = False) -> list[str]:
    """Every class name in every template, the templates of a class next to each other.

    Raises:
        InputError: there are no class names or no templates, or a template has no ``{}``.
    """
    if not classnames:
        raise InputError("there are no class names; give at least one")
    checked = check_templates(templates, "the templates")
    texts = [fill(template, name) for name in classnames for template in checked]
    return [canonicalize(text) for text in texts] if canonical else texts


def _means(rows: Float[np.ndarray, "n d"], size: int) -> Float[np.ndarray, "groups d"]:
    """The mean of each ``size`` rows that follow one another."""
    means: np.ndarray = rows.reshape(-1, size, rows.shape[1]).mean(axis=1)
    return means


def _unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # A row of zeros has no direction: it stays as it is instead of turning into NaN.
    unit: np.ndarray = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
