"""Which texts a row has: its ``captions``, else its ``caption``, or whatever fields were asked for."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from littune.pairs.rows import RowError

MAX_TEXT_BYTES = 16 << 20
"""The largest file, member or line of text that is read."""

DEFAULT_FIELDS = ("captions", "caption")
"""The fields that supply texts when none are asked for: the first of them that holds any."""


def texts_from(fields: Mapping[str, object], names: Sequence[str]) -> tuple[str, ...]:
    """The texts under ``names``, in order, stripped, without blanks and duplicates.

    A name is a field or a dotted path into nested ones (``translations.de``). A string is one text, a list
    several; what is missing or neither of the two gives none.
    """
    return tuple(dict.fromkeys(text for name in names for text in _texts_in(look_up(fields, name))))


def caption_texts(fields: Mapping[str, object], names: Sequence[str]) -> tuple[str, ...]:
    """The texts under ``names``, or of the first default field that has any when ``names`` is empty.

    Raises:
        RowError: there are none, or one of them is no valid Unicode.
    """
    choices = (names,) if names else tuple((name,) for name in DEFAULT_FIELDS)
    texts: tuple[str, ...] = next(filter(None, (texts_from(fields, choice) for choice in choices)), ())
    if not texts:
        raise RowError(_why_none(fields, names or DEFAULT_FIELDS))
    if not is_unicode(texts):
        raise RowError("its text is not valid Unicode")
    return texts


def decode_text(data: bytes, what: str) -> str:
    """UTF-8 bytes, with or without a byte order mark, as a string; ``what`` names them in the error.

    Raises:
        RowError: they are not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RowError(f"{what} is not UTF-8 (byte {error.start}); save it as UTF-8") from error


def parse_object(data: bytes, what: str) -> dict[str, object]:
    """The JSON object in ``data``; ``what`` names it in the error.

    Raises:
        RowError: it is not UTF-8, not valid JSON, or no object.
    """
    text = decode_text(data, what)
    try:
        value = json.loads(text, parse_constant=_no_number)
    except ValueError as error:
        raise RowError(f"{what} is not valid JSON ({error})") from error
    except RecursionError as error:
        raise RowError(f"{what} is nested too deeply") from error
    if not isinstance(value, dict):
        raise RowError(f"{what} holds no JSON object")
    # Half of a surrogate pair can only be written as an escape; later it could not be stored as UTF-8.
    if "\\ud" in text.lower() and not is_unicode((json.dumps(value, ensure_ascii=False),)):
        raise RowError(f"{what} is not valid Unicode (half a surrogate pair)")
    return value


def is_unicode(texts: Iterable[str]) -> bool:
    """Whether every text can be written as UTF-8: no lone surrogates."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_json(value: object) -> object:
    """``value`` as JSON can hold it: numbers that are none become None, bytes too, other things their string."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): as_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return None if isinstance(value, bytes) else str(value)


def _no_number(_: str) -> None:
    """What Python's reader makes of NaN and Infinity, which JSON does not know."""


def look_up(fields: Mapping[str, object], name: str) -> object:
    """The value of a field or at a dotted path; None where there is none."""
    if name in fields:
        return fields[name]
    value: object = fields
    for step in name.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(step)
    return value


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if text := value.strip():
            yield text
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts_in(inner)


def _why_none(fields: Mapping[str, object], names: Sequence[str]) -> str:
    if all(look_up(fields, name) is None for name in names):
        there = ", ".join(sorted(fields)) or "nothing"
        return f"it has no text under {' or '.join(names)} (it has {there})"
    return "its caption is empty"
