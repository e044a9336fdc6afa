"""Lines of a text file: each one a text, or a clear word about why not."""

from pathlib import Path

import pytest

from littune.apps.encoding import read_lines
from littune.base.errors import InputError


def test_lines_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffa dog\r\nein Hund – größer\n".encode())
    assert read_lines(path) == ["a dog", "ein Hund – größer"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "it is empty"), (b"a\n\nb\n", "line 2 is blank"), (b"\xff\xfe\xff", "not UTF-8"), (None, "cannot read")],
)
def test_a_file_that_cannot_be_embedded(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_lines(tmp_path / "a.txt")
