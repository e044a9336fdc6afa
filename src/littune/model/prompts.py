"""Prompt templates: the texts around a class name (section 4, "zero-shot transfer").

A template holds ``{}`` where the class name goes; CLIP_benchmark's spelling ``{c}`` is read too.
"""

import string
from collections.abc import Callable, Sequence
from pathlib import Path

from littune.base.errors import InputError
from littune.model.shipped import benchmark_templates, openai_templates

DEFAULT_TEMPLATES = ("a photo of a {}.", "a {}.", "{}")

_CLIP_BEST = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "{}",
)

# "clip_best" is the seven templates that OpenAI found to do best on ImageNet, and the bare name; "clip_paper" is all
# 80 of theirs, and the bare name.
TEMPLATE_SETS: dict[str, Callable[[], tuple[str, ...]]] = {
    "default": lambda: DEFAULT_TEMPLATES,
    "class_name_only": lambda: ("{}",),
    "clip_best": lambda: _CLIP_BEST,
    "clip_paper": lambda: (*openai_templates(), "{}"),
}
BENCHMARK = "clip_benchmark:"
"""What a choice begins with that names a data set of clip-benchmark's: ``clip_benchmark:NAME[:LANG]``."""

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def load_templates(choice: str | Path | Sequence[str]) -> tuple[str, ...]:
    """The templates that a choice stands for.

    Args:
        choice: a name in ``TEMPLATE_SETS``, ``clip_benchmark:NAME[:LANG]`` (clip-benchmark's templates for a data set),
            a file (one a line), or the templates.

    Raises:
        InputError: it is neither a set's name nor a readable file, there are no templates, or one lacks ``{}``.
        MissingExtraError: the set ships in a package that is not installed.
    """
    if isinstance(choice, str) and choice in TEMPLATE_SETS:
        return TEMPLATE_SETS[choice]()
    if isinstance(choice, str) and choice.startswith(BENCHMARK):
        return check_templates(benchmark_templates(*split_benchmark(choice)), choice)
    if isinstance(choice, str | Path):
        return read_templates(Path(choice))
    return check_templates(choice, "the templates")


def read_templates(path: Path) -> tuple[str, ...]:
    """The templates in a UTF-8 file, one a line; blank lines are passed over.

    Raises:
        InputError: the file cannot be read, is not UTF-8, holds no template, or one lacks ``{}``.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        names = f"{', '.join(TEMPLATE_SETS)} or {BENCHMARK}NAME"
        raise InputError(f"no templates at {path} ({error.strerror}); give a file, or one of {names}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8, one template a line") from error
    return check_templates([line.strip() for line in lines if line.strip()], str(path))


def split_benchmark(choice: str) -> tuple[str, str]:
    """``clip_benchmark:NAME[:LANG]`` → the data set's name and the language, by default ``en``."""
    name, _, language = choice.removeprefix(BENCHMARK).partition(":")
    return name, language or "en"


def check_templates(templates: Sequence[str], where: str) -> tuple[str, ...]:
    """The templates with ``{c}`` spelled ``{}``.

    Args:
        templates: what to check.
        where: what an error names as their place.

    Raises:
        InputError: there are none, or one has no place for the class name.
    """
    spelled = tuple(template.replace("{c}", "{}") for template in templates)
    if not spelled:
        raise InputError(f"{where}: there are no templates; give at least one, such as 'a photo of a {{}}.'")
    for template in spelled:
        if "{}" not in template:
            raise InputError(f"{where}: the template {template!r} has no {{}}; put {{}} where the class name goes")
    return spelled


def fill(template: str, classname: str) -> str:
    """The template with the class name in every ``{}``; other braces are left as they are."""
    return template.replace("{}", classname)


def canonicalize(text: str) -> str:
    """Canonical text as in big_vision: ``_`` → space, no ASCII punctuation, lower case, single spaces.

    A text that is nothing but punctuation stays as it is, for nothing would be left of it.
    """
    plain = text.replace("_", " ").translate(_NO_PUNCTUATION).lower()
    return " ".join(plain.split()) or text
