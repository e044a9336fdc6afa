"""Class names and templates that ship inside other packages: read from their files, the packages are not imported.

Importing ``open_clip`` or ``clip_benchmark`` takes ten seconds; the files that matter here are plain data.
"""

import importlib.util
import json
import runpy
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from littune.base.errors import InputError, MissingExtraError

_LANGUAGES = ("en", "ar", "cn", "it", "jp")
"""What clip-benchmark calls the languages that it has names and templates in."""


@cache
def openai_templates() -> tuple[str, ...]:
    """OpenAI's 80 templates for ImageNet, from ``open_clip``.

    Raises:
        MissingExtraError: open_clip_torch is not installed.
    """
    templates: Sequence[Callable[[str], str]] = _metadata("OpenAI's 80 templates")["OPENAI_IMAGENET_TEMPLATES"]
    return tuple(template("{}") for template in templates)


@cache
def imagenet_names() -> tuple[str, ...]:
    """OpenAI's names of ImageNet's 1,000 classes, from ``open_clip``. Two names stand for two classes each.

    Raises:
        MissingExtraError: open_clip_torch is not installed.
    """
    return tuple(_metadata("the class names of ImageNet")["IMAGENET_CLASSNAMES"])


def benchmark_names(name: str, language: str = "en") -> tuple[str, ...]:
    """clip-benchmark's class names of a data set, such as ``pets``.

    Raises:
        MissingExtraError: clip-benchmark is not installed.
        InputError: it has no such language, or no class names of the data set in it.
    """
    return _from_benchmark("classnames", "class names", name, language)


def benchmark_templates(name: str, language: str = "en") -> tuple[str, ...]:
    """clip-benchmark's templates for a data set, with ``{c}`` for the class name.

    Raises:
        MissingExtraError: clip-benchmark is not installed.
        InputError: it has no such language, or no templates for the data set in it.
    """
    return _from_benchmark("zeroshot_classification_templates", "templates", name, language)


@cache
def babel_names() -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Babel-ImageNet: language in upper case → the ImageNet classes that have a name in it, and their names.

    Raises:
        MissingExtraError: clip-benchmark is not installed.
    """
    names = _benchmark_json("babel_imagenet.json", "Babel-ImageNet")
    return {language: (tuple(classes), tuple(its)) for language, (classes, its) in names.items()}


@cache
def babel_templates() -> dict[str, tuple[str, ...]]:
    """Language in upper case → OpenAI's 80 templates as a machine translated them, with ``{}``.

    Raises:
        MissingExtraError: clip-benchmark is not installed.
    """
    translated = _benchmark_json("nllb_dist13b_prompts.json", "Babel-ImageNet's templates")
    return {language: tuple(" ".join(each.split()) for each in its) for language, its in translated.items()}


@cache
def wordnet_ids(subset: str = "") -> tuple[str, ...]:
    """The WordNet ids of ImageNet's 1,000 classes in their order, or of a subset's: ``a`` or ``r``; from ``timm``."""
    return tuple((_timm_data() / f"imagenet_{subset}{'_' if subset else ''}synsets.txt").read_text("utf-8").split())


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """ReaL: for each image of ImageNet's validation split, in the order of their numbers, all its right classes.

    Beyer et al. 2020, "Are we done with ImageNet?"; from ``timm``. Some images have none.
    """
    listed = json.loads((_timm_data() / "imagenet_real_labels.json").read_text("utf-8"))
    return tuple(tuple(labels) for labels in listed)


def _from_benchmark(kind: str, what: str, name: str, language: str) -> tuple[str, ...]:
    if language not in _LANGUAGES:
        raise InputError(f"clip_benchmark has no language {language!r}; it has {', '.join(_LANGUAGES)}")
    listed = _benchmark_json(f"{language}_{kind}.json", f"clip_benchmark:{name}")
    if name not in listed:
        raise InputError(f"clip_benchmark has no {what} of {name!r} in {language!r}; it has {', '.join(listed)}")
    return tuple(listed[name])


@cache
def _benchmark_json(file: str, what: str) -> dict[str, Any]:
    """The object in a file of clip-benchmark's; ``what`` is what a user asked for."""
    value: dict[str, Any] = json.loads((_folder("clip_benchmark", what) / "datasets" / file).read_text("utf-8"))
    return value


@cache
def _metadata(what: str) -> dict[str, Any]:
    """The names in open_clip's module of constants, which imports nothing."""
    return runpy.run_path(str(_folder("open_clip", what) / "zero_shot_metadata.py"))


def _timm_data() -> Path:
    return _folder("timm", "timm") / "data" / "_info"


def _folder(module: str, what: str) -> Path:
    """An installed package's folder."""
    found = importlib.util.find_spec(module)
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(what, "names")
    return Path(next(iter(found.submodule_search_locations)))
