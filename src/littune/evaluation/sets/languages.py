"""Texts and class names in other languages, and the English ones of the same images or classes beside them.

A score in another language means little alone; beside the English score of the same rows, or of the same classes, it
says what the model lost with the language.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from littune.base.errors import InputError
from littune.model.classnames import read_name_lines
from littune.model.prompts import check_templates
from littune.model.shipped import (
    babel_names,
    babel_templates,
    benchmark_names,
    benchmark_templates,
    imagenet_names,
    openai_templates,
)
from littune.pairs.texts import texts_from
from littune.store.store import EmbeddingStore

_ENGLISH = "en"
_BARE = ("{}",)

_NESTED = ("translations", "captions")
_SUFFIXED = re.compile(r"captions?_([a-z]{2,3}(?:[-_](?:[a-z]{2}|[a-z]{4}))?)", re.ASCII | re.IGNORECASE)

# Codes of languages → what clip-benchmark calls them; two of its names are those of countries.
_OF_BENCHMARK = {"ar": "ar", "cn": "cn", "it": "it", "ja": "jp", "jp": "jp", "zh": "cn"}
_IMAGENET_1K = "imagenet1k"


def texts_in(
    store: EmbeddingStore, language: str
) -> tuple[Int64[np.ndarray, " m"], list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The rows of a set of pairs that have texts in a language: which, their texts in it, and their English texts.

    A row's texts in a language are in its fields ``translations.LANG``, ``captions.LANG``, ``captions_LANG`` or
    ``caption_LANG``, the first of these that holds any; case does not matter. Its English texts are found in the same
    way, else they are its captions.

    Args:
        store: the set.
        language: the language's code, such as ``de``.

    Returns:
        The numbers of the rows (ascending), and for each its texts and its English texts (none where it has none).

    Raises:
        InputError: no row has texts in the language.
    """
    code = _code(language)
    rows, texts, english = [], [], []
    for row, (fields, captions) in enumerate(zip(store.fields(), store.texts(), strict=True)):
        found = {_ENGLISH: captions} | _by_language(fields)
        if found.get(code):
            rows.append(row)
            texts.append(found[code])
            english.append(found[_ENGLISH])
    if not rows:
        there = ", ".join(languages_of(store)) or "none"
        raise InputError(f"no texts in the language {language!r}; there are {there} (fields translations.LANG)")
    return np.array(rows, dtype=np.int64), texts, english


def languages_of(store: EmbeddingStore) -> dict[str, int]:
    """The languages that the rows say to have texts in, and how many rows each; the commonest first."""
    counts = Counter(code for fields in store.fields() for code in _by_language(fields))
    return dict(counts.most_common())


def _by_language(fields: Mapping[str, object]) -> dict[str, tuple[str, ...]]:
    """Language → a row's texts in it, as far as its fields say."""
    found: dict[str, tuple[str, ...]] = {}
    for name in _NESTED:
        nested = fields.get(name)
        if isinstance(nested, Mapping):
            for language in nested:
                _add(found, language, texts_from(nested, (language,)))
    for name in fields:
        if match := _SUFFIXED.fullmatch(name):
            _add(found, match[1], texts_from(fields, (name,)))
    return found


def _add(found: dict[str, tuple[str, ...]], language: str, texts: tuple[str, ...]) -> None:
    if texts:
        found.setdefault(_code(language), texts)


def _code(language: str) -> str:
    return language.strip().lower().replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class TranslatedClasses:
    """Those classes of a set that have a name in a language, and how to prompt for them in it and in English."""

    classes: tuple[int, ...]
    """Which of the set's classes, ascending."""
    names: tuple[str, ...]
    templates: tuple[str, ...]
    english_names: tuple[str, ...]
    english_templates: tuple[str, ...]
    """The templates that the others are translations of; the bare name where there are no others."""


def class_texts_in(classnames: Sequence[str], language: str, *, pattern: str | None = None) -> TranslatedClasses:
    """Names and templates in a language for a set's classes.

    With a pattern, from a file of one's own, with the bare name as the template. Without one, for classes of
    ImageNet's under OpenAI's names: clip-benchmark's translations (ar, it, ja, zh), else Babel-ImageNet (Geigle et
    al. 2023), which has names of some of the classes in each of 92 languages.

    Args:
        classnames: the set's English names.
        language: the language's code, such as ``de``.
        pattern: the file's path with ``{lang}`` for the code; it holds a line a class, blank where it has no name.

    Raises:
        InputError: the file cannot be used, or without a pattern, the classes are not ImageNet's or have no names
            in the language.
        MissingExtraError: the names ship in a package that is not installed.
    """
    if pattern is not None:
        return _from_file(classnames, language, pattern)
    code, places = _code(language), _imagenet_places(classnames)
    if code == _ENGLISH:
        names, templates = dict(enumerate(imagenet_names())), openai_templates()
    elif code in _OF_BENCHMARK:
        names = dict(enumerate(benchmark_names(_IMAGENET_1K, _OF_BENCHMARK[code])))
        its = benchmark_templates(_IMAGENET_1K, _OF_BENCHMARK[code])
        templates = check_templates(its, f"clip_benchmark:{_IMAGENET_1K}")
    else:
        names, templates = _from_babel(language)
    english = _BARE if templates == _BARE else openai_templates()
    found = {index: names[place] for index, place in enumerate(places) if place in names}
    if not found:
        raise InputError(f"none of the {len(classnames)} classes has a name in {language!r}; {_OWN_FILES}")
    return _translated(classnames, found, templates, english)


_OWN_FILES = "name files by a pattern with {lang} in it, such as names-{lang}.txt, with a line a class"


def _imagenet_places(classnames: Sequence[str]) -> tuple[int, ...]:
    """Which of ImageNet's classes these are, by OpenAI's names."""
    names = imagenet_names()
    if tuple(classnames) == names:
        return tuple(range(len(names)))
    # Two names stand for two classes each: the later is passed over.
    places = {name: place for place, name in reversed(list(enumerate(names)))}
    unknown = [name for name in classnames if name not in places]
    if unknown:
        raise InputError(f"{unknown[0]!r} is none of ImageNet's class names, the only ones translated; {_OWN_FILES}")
    return tuple(places[name] for name in classnames)


def _from_babel(language: str) -> tuple[dict[int, str], tuple[str, ...]]:
    """Class of ImageNet → name, and the templates; a few languages have names only."""
    code = _code(language).upper()
    if code not in babel_names():
        there = ", ".join(sorted({name.lower() for name in babel_names()} | {*_OF_BENCHMARK}))
        raise InputError(f"ImageNet's classes have no names in {language!r}, only in {there}; {_OWN_FILES}")
    classes, names = babel_names()[code]
    return dict(zip(classes, names, strict=True)), babel_templates().get(code, _BARE)


def _from_file(classnames: Sequence[str], language: str, pattern: str) -> TranslatedClasses:
    if "{lang}" not in pattern:
        raise InputError(f"{pattern} has no {{lang}} in it, for the language's code; {_OWN_FILES}")
    path = Path(pattern.replace("{lang}", language))
    lines = read_name_lines(path)
    if len(lines) != len(classnames):
        raise InputError(f"{path} has {len(lines)} lines for {len(classnames)} classes; write a line a class")
    found = {index: name for index, name in enumerate(lines) if name}
    if not found:
        raise InputError(f"{path} holds no names; write a line a class")
    return _translated(classnames, found, _BARE, _BARE)


def _translated(
    classnames: Sequence[str], names: Mapping[int, str], templates: tuple[str, ...], english: tuple[str, ...]
) -> TranslatedClasses:
    return TranslatedClasses(
        classes=tuple(names),
        names=tuple(names.values()),
        templates=templates,
        english_names=tuple(classnames[index] for index in names),
        english_templates=english,
    )
