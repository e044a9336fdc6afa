"""What is asked of an evaluation, beside the model and the sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from littune.base.errors import InputError
from littune.config import Check
from littune.model.prompts import DEFAULT_TEMPLATES, load_templates

_LANGUAGE = "{lang}"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``evaluate`` takes by name; its docstring says what each is.

    Raises:
        InputError: a k is below 1, there are no such templates, or a setting needs another.
    """

    templates: str | Path | Sequence[str] | None
    classnames: str | Path | Sequence[str] | None
    canonical: bool
    texts: Sequence[str]
    languages: Sequence[str]
    ks: Sequence[int]
    checks: Sequence[Check]
    seen: Sequence[str] | None
    details: bool
    allow_foreign: bool

    def __post_init__(self) -> None:
        if not self.ks or min(self.ks) < 1:
            raise InputError(f"ks = {list(self.ks)} is not usable: give one or more numbers of at least 1")
        if self.checks and not self.details:
            raise InputError("details = False leaves no room for checks: leave one of them out")
        if self.seen is not None and not self.looks_back:
            raise InputError("seen says where to look for duplicates and hubness: it goes with one of these checks")
        if self.classnames_pattern and not self.languages:
            raise InputError(
                f"classnames = {self.classnames_pattern!r} is for languages: name some, or leave out {_LANGUAGE}"
            )
        if self.templates is not None:
            load_templates(self.templates)  # for its errors, before anything is embedded

    def prompts(self, *own: str | Sequence[str] | None) -> tuple[str, ...]:
        """The templates that were asked for, else the first of ``own`` that there are, else the default ones.

        Raises:
            MissingExtraError: they ship in a package that is not installed.
        """
        asked = (self.templates, *own, DEFAULT_TEMPLATES)
        return load_templates(next(templates for templates in asked if templates))

    def checks_for(self, check: Check) -> bool:
        """Whether this check was asked for."""
        return check in self.checks or "all" in self.checks

    @property
    def looks_back(self) -> bool:
        """Whether what the model was trained on is looked at."""
        return self.checks_for("duplicates") or self.checks_for("hubness")

    @property
    def own_classnames(self) -> str | Path | Sequence[str] | None:
        """What the classes are called when no language is asked for; None for the set's own names."""
        return None if self.classnames_pattern else self.classnames

    @property
    def classnames_pattern(self) -> str | None:
        """A file of class names for each language, with ``{lang}`` in its name."""
        return (
            str(self.classnames)
            if isinstance(self.classnames, str | Path) and _LANGUAGE in str(self.classnames)
            else None
        )

    def to_dict(self) -> dict[str, object]:
        """The settings as JSON values; what was not asked for is left out."""
        asked = {name: value for name, value in vars(self).items() if value not in (None, (), False)}
        return {name: _plain(value) for name, value in asked.items()}


def _plain(value: object) -> object:
    if isinstance(value, str | bool):
        return value
    return list(value) if isinstance(value, Sequence) else str(value)
