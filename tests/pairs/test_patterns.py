from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.pairs.patterns import is_pattern, matching_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ["00008.tar", "00009.tar", "00010.tar", "a.tar", "b.tar", "sub/c.tar", "odd{1..2}.tar"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("{00008..00010}.tar", ["00008.tar", "00009.tar", "00010.tar"]),
        ("000{08,10}.tar", ["00008.tar", "00010.tar"]),
        ("{b,a}.tar", ["b.tar", "a.tar"]),
        ("0000?.tar", ["00008.tar", "00009.tar"]),
        ("{a,b}*.tar", ["a.tar", "b.tar"]),
        ("[ab].tar", ["a.tar", "b.tar"]),
        ("{sub/c,a}.tar", ["sub/c.tar", "a.tar"]),
        ("s*/**/c.tar", ["sub/c.tar"]),
        ("{a,a}.tar", ["a.tar"]),
    ],
)
def test_matching_files(folder: Path, pattern: str, expected: list[str]) -> None:
    assert matching_files(f"{folder}/{pattern}") == tuple(folder / name for name in expected)


def test_a_range_without_leading_zeros_is_not_padded(tmp_path: Path) -> None:
    for number in (8, 9, 10):
        (tmp_path / f"{number}.tar").touch()
    assert [path.name for path in matching_files(f"{tmp_path}/{{8..10}}.tar")] == ["8.tar", "9.tar", "10.tar"]


def test_is_pattern(folder: Path) -> None:
    assert is_pattern("x/{0..9}.tar")
    assert is_pattern("x/*.tar")
    assert not is_pattern("x/a.tar")
    assert not is_pattern(str(folder / "odd{1..2}.tar"))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("x*.tar", r"x\*.tar matches no file"),
        ("{00008..00011}.tar", r"00011.tar \(of .*\) matches no file"),
        ("{5..1}.tar", "no range that can be counted up"),
        ("{0..99999999}.tar", "no range that can be counted up"),
        ("{0..9999}{0..9999}.tar", "100,000,000 files, over the limit"),
        ("s*b", "matches no file"),
    ],
)
def test_patterns_that_cannot_be_used(folder: Path, pattern: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        matching_files(f"{folder}/{pattern}")
