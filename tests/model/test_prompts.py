"""Templates and class names: sets, files, and what is wrong with a file."""

import importlib.util
import runpy
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.model.prompts import (
    DEFAULT_TEMPLATES,
    canonicalize,
    check_templates,
    fill,
    load_templates,
    read_templates,
)


def test_clip_best_is_the_seven_templates_of_openai_and_the_bare_name() -> None:
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        pytest.skip("open_clip_torch, which has them too, is not installed")
    # The file alone: importing the package takes ten seconds.
    metadata = runpy.run_path(str(Path(package.origin).with_name("zero_shot_metadata.py")))
    seven = tuple(template("{}") for template in metadata["SIMPLE_IMAGENET_TEMPLATES"])
    assert load_templates("clip_best") == (*seven, "{}")


def test_clip_paper_is_openais_eighty_templates_and_the_bare_name() -> None:
    templates = load_templates("clip_paper")
    assert len(templates) == len(set(templates)) == 81
    assert templates[0] == "a bad photo of a {}." and templates[-2:] == ("a tattoo of the {}.", "{}")
    assert set(load_templates("clip_best")) <= set(templates)


def test_clip_benchmarks_templates_are_named_by_data_set_and_language() -> None:
    assert load_templates("clip_benchmark:pets") == ("a photo of a {}, a type of pet.",)
    assert load_templates("clip_benchmark:imagenet1k") == load_templates("clip_paper")[:-1]
    assert load_templates("clip_benchmark:imagenet1k:it")[0] == "una brutta foto di {}"
    with pytest.raises(InputError, match="no templates of 'cats' in 'en'; it has .*pets"):
        load_templates("clip_benchmark:cats")
    with pytest.raises(InputError, match="no language 'xx'; it has en, ar"):
        load_templates("clip_benchmark:pets:xx")


def test_a_choice_is_a_set_a_file_or_the_templates_themselves(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a {}.\n", encoding="utf-8")
    assert load_templates("class_name_only") == ("{}",)
    assert load_templates("default") == DEFAULT_TEMPLATES
    assert load_templates(str(file)) == load_templates(file) == ("a {}.",)
    assert load_templates(["one {}", "two {}"]) == ("one {}", "two {}")


def test_a_file_may_have_blank_lines_a_byte_order_mark_and_clip_benchmarks_braces(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_bytes("\ufeffa photo of a {c}.\r\n\r\n  ein Foto: {}  \r\n".encode())
    assert read_templates(file) == ("a photo of a {}.", "ein Foto: {}")


def test_a_template_without_a_place_for_the_name_is_named(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a {}.\na photo\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_templates(file)
    message = str(error.value)
    assert str(file) in message and "'a photo' has no {}" in message and "\n" not in message


@pytest.mark.parametrize(
    ("contents", "expected"), [(b"", "there are no templates"), (b"\n \n", "no templates"), (b"a \xff{}", "not UTF-8")]
)
def test_an_empty_file_and_one_in_another_encoding_are_errors(tmp_path: Path, contents: bytes, expected: str) -> None:
    file = tmp_path / "templates.txt"
    file.write_bytes(contents)
    with pytest.raises(InputError, match=expected):
        read_templates(file)


def test_a_choice_that_is_nothing_shows_the_sets(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"no templates at .*clip_bset.*default, class_name_only, clip_best, clip_paper or clip_benchmark:NAME",
    ):
        load_templates(str(tmp_path / "clip_bset"))
    with pytest.raises(InputError, match="no templates at"):
        load_templates(tmp_path)
    with pytest.raises(InputError, match="there are no templates"):
        check_templates([], "the templates")


def test_a_name_fills_every_place_and_its_braces_are_only_text() -> None:
    assert fill("a {}, one {}", "cat") == "a cat, one cat"
    assert fill("a {x} of a {}", "{0}") == "a {x} of a {0}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Golden_Retriever", "golden retriever"),
        ("  a photo  of a\tcat. ", "a photo of a cat"),
        ("St. Bernard (dog)", "st bernard dog"),
        ("jack-o'-lantern", "jackolantern"),
        ("Größe", "größe"),
        ("#", "#"),
    ],
)
def test_canonical_text_is_big_visions(text: str, expected: str) -> None:
    assert canonicalize(text) == expected
