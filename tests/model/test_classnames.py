"""Class names: what a choice stands for, and which name belongs to which folder."""

from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.model.classnames import load_classnames, places_of, rename
from littune.model.shipped import wordnet_ids

NAMES = [f"name {number}" for number in range(1000)]


def test_a_choice_is_a_set_a_file_or_the_names(tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    file.write_bytes("\ufeffcat\r\n\r\n  grüner Hund \n".encode())
    assert load_classnames(file) == load_classnames(str(file)) == ("cat", "grüner Hund")
    assert load_classnames(["a", "b"]) == ("a", "b")
    assert load_classnames("imagenet")[:2] == ("tench", "goldfish")
    assert load_classnames("clip_benchmark:pets")[0] == "Abyssinian"
    assert load_classnames("clip_benchmark:imagenet1k:it")[0] == "una tinca"


@pytest.mark.parametrize("contents", [b"", b" \n\n"])
def test_a_file_without_names_is_an_error(tmp_path: Path, contents: bytes) -> None:
    (tmp_path / "names.txt").write_bytes(contents)
    with pytest.raises(InputError, match=r"names\.txt: there are no class names"):
        load_classnames(tmp_path / "names.txt")


def test_what_cannot_be_read_is_an_error_that_shows_the_choices(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class names at imagnet .*imagenet or clip_benchmark:NAME"):
        load_classnames("imagnet")
    with pytest.raises(InputError, match="no class names of 'cats' in 'en'; it has flowers"):
        load_classnames("clip_benchmark:cats")
    (tmp_path / "latin").write_bytes(b"gr\xfcn")
    with pytest.raises(InputError, match="not UTF-8"):
        load_classnames(tmp_path / "latin")


def test_wordnet_ids_go_by_their_place_among_the_thousand() -> None:
    assert places_of(["n01440764", "n01443537"], NAMES) == (0, 1)
    assert places_of(wordnet_ids(), NAMES) == tuple(range(1000))
    assert rename(wordnet_ids("r"), NAMES)[:3] == ("name 1", "name 2", "name 4")  # goldfish, great white, hammerhead
    with pytest.raises(InputError, match=r"n00000001 is none of ImageNet's"):
        places_of(["n01440764", "n00000001"], NAMES)


def test_wordnet_ids_that_have_a_name_each_go_by_position() -> None:
    assert rename(["n00000001", "n01440764"], ["a", "b"]) == ("a", "b")


def test_whole_numbers_are_places_however_they_sort() -> None:
    folders = sorted(map(str, range(1000)))
    assert folders[2] == "10"
    assert rename(folders, NAMES)[2] == "name 10"
    assert rename(["003", "017"], NAMES) == ("name 3", "name 17")


def test_whole_numbers_from_one_on_count_from_one() -> None:
    folders = sorted(map(str, range(1, 103)))
    names = NAMES[:102]
    assert rename(folders, names)[:2] == ("name 0", "name 9")
    # Without the last there is no telling: they are places.
    assert rename(["1", "2"], NAMES[:3]) == ("name 1", "name 2")


def test_anything_else_goes_by_position_where_the_counts_agree() -> None:
    assert rename(["red", "green"], ["rot", "grün"]) == ("rot", "grün")
    assert rename(["1990", "2000"], ["then", "now"]) == ("then", "now")
    with pytest.raises(InputError, match=r"the set has 4 classes \(a, b, c, …\) and there are 3 class names"):
        rename(["a", "b", "c", "d"], ["x", "y", "z"])


def test_the_same_names_are_matched_whatever_their_order_and_spelling() -> None:
    folders = ["Abyssinian", "Bengal", "american_bulldog"]  # as folders sort
    names = ["Abyssinian", "American Bulldog", "Bengal"]
    assert rename(folders, names) == ("Abyssinian", "Bengal", "American Bulldog")
    assert places_of(folders, names) == (0, 2, 1)


def test_names_in_another_order_are_refused_where_position_would_decide() -> None:
    with pytest.raises(InputError, match="in another order .*'b' stands elsewhere"):
        rename(["a", "b", "c"], ["b", "c", "d"])
    # One of three: a word with two meanings.
    assert rename(["corgi", "cardigan", "cat"], ["cardigan", "cardigan sweater", "cat"])[0] == "cardigan"
