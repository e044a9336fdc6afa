import pytest

from littune.pairs.rows import RowError
from littune.pairs.texts import as_json, caption_texts, decode_text, parse_object, texts_from

FIELDS = {
    "caption": "a cat",
    "captions": ["a cat", " a small cat ", "", "a cat", 7],
    "translations": {"de": "eine Katze", "fr": "  "},
    "a.b": "exact",
    "num": 3,
}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["caption"], ("a cat",)),
        (["captions"], ("a cat", "a small cat")),
        (["translations.de", "caption"], ("eine Katze", "a cat")),
        (["caption", "captions"], ("a cat", "a small cat")),
        (["a.b"], ("exact",)),
        (["translations.fr", "translations.xx", "nothing", "num", "num.x", "translations", "caption.x"], ()),
        ([], ()),
    ],
)
def test_texts_from(names: list[str], expected: tuple[str, ...]) -> None:
    assert texts_from(FIELDS, names) == expected


def test_captions_come_before_the_caption() -> None:
    assert caption_texts(FIELDS, ()) == ("a cat", "a small cat")
    assert caption_texts({"captions": [" "], "caption": "one"}, ()) == ("one",)
    assert caption_texts(FIELDS, ("translations.de",)) == ("eine Katze",)


def test_why_a_row_has_no_texts() -> None:
    with pytest.raises(RowError, match="its caption is empty"):
        caption_texts({"caption": " \n"}, ())
    with pytest.raises(RowError, match=r"no text under keywords \(it has a.b, caption, captions"):
        caption_texts(FIELDS, ("keywords",))
    with pytest.raises(RowError, match="not valid Unicode"):
        caption_texts({"caption": "\ud83d"}, ())


def test_decode_text() -> None:
    assert decode_text("\ufeffgrün".encode(), "its .txt") == "grün"
    with pytest.raises(RowError, match=r"its .txt is not UTF-8 \(byte 2\)"):
        decode_text("grün".encode("latin-1"), "its .txt")


def test_parse_object() -> None:
    assert parse_object(b'{"a": NaN, "b": [1, "\\ud83d\\ude00"]}', "it") == {"a": None, "b": [1, "😀"]}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "holds no JSON object"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": "\\ud83d"}', "not valid Unicode"),
        (b'{"a": "\xed\xa0\xbd"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"", "not valid JSON"),
    ],
)
def test_parse_object_refuses(data: bytes, reason: str) -> None:
    with pytest.raises(RowError, match=f"its .json.*{reason}"):
        parse_object(data, "its .json")


def test_as_json() -> None:
    value = {"a": (1, 2.5, float("nan")), 3: b"bytes", "t": True, "e": ValueError("x"), "n": None}
    assert as_json(value) == {"a": [1, 2.5, None], "3": None, "t": True, "e": "x", "n": None}
