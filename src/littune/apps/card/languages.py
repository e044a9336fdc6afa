"""The languages of a run's training texts, as far as the names of their fields tell."""

import re
from collections.abc import Sequence

from littune.apps.card.records import Source

_FIELD = re.compile(r"(?:translations|captions)\.([a-z]{2,3})|captions?_([a-z]{2,3})", re.ASCII | re.IGNORECASE)


def languages_of(data: Sequence[Source]) -> list[str]:
    """The codes of the languages that training texts were taken in; those of plain captions are not known."""
    found = (_FIELD.fullmatch(field) for source in data for field in source.texts)
    return sorted({(match[1] or match[2]).lower() for match in found if match})
