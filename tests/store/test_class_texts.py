from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.store.class_texts import imagenet_classes, read_classes


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_imagenet_1k_gives_the_texts_of_the_trial() -> None:
    classes = imagenet_classes("imagenet-1k")
    assert list(classes) == list(range(1000))
    tench = classes[0]
    assert tench.texts == (
        "tench",
        "Tinca tinca",
        "tench, Tinca tinca: freshwater dace-like game fish of Europe and western Asia noted for ability to survive "
        "outside water",
        "a photo of a tench.",
        "a photo of a Tinca tinca.",
    )
    assert tench.name == "tench"
    assert tench.fields["names"] == ["tench", "Tinca tinca"]
    assert tench.fields["wnid"] == "n01440764"
    assert str(tench.fields["definition"]).startswith("freshwater dace-like")
    assert sum(len(each.texts) for each in classes.values()) == 4720


@pytest.mark.parametrize(
    ("label_set", "count"), [("imagenet-21k", 21843), ("imagenet-12k", 11821), ("imagenet-21k-miil", 11221)]
)
def test_every_class_of_the_larger_sets_has_texts(label_set: str, count: int) -> None:
    classes = imagenet_classes(label_set)
    assert len(classes) == count
    assert all(each.name and all(each.texts) for each in classes.values())


def test_lines_are_names_with_or_without_texts(write) -> None:
    classes = read_classes(write("c.txt", "cat\ndog\ta dog| man's best friend |a dog\n"), 2)
    assert classes[0].texts == ("cat", "a photo of a cat.")
    assert classes[1].texts == ("a dog", "man's best friend")
    assert classes[1].name == "dog"


def test_json_by_name_in_order(write) -> None:
    classes = read_classes(write("c.json", '{"cat": ["a cat"], "dog": "a dog", "emu": []}'), 3)
    assert [each.texts for each in classes.values()] == [("a cat",), ("a dog",), ("emu", "a photo of a emu.")]


def test_json_by_index_may_name_some(write) -> None:
    classes = read_classes(write("c.json", '{"7": ["emu", "a bird"]}'), 10)
    assert list(classes) == [7]
    assert classes[7].name == "emu"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("c.txt", "cat\ndog\n", "lists 2 classes and the classifier has 3"),
        ("c.txt", "", "lists 0 classes and the classifier has 3"),
        ("c.txt", "cat\n\ndog\n", "no class name in line 2"),
        ("c.json", '{"3": ["emu"]}', "names class 3 and the classifier has 3, 0 to 2"),
        ("c.json", '{"a": 5, "b": [], "c": []}', "the texts of class 'a' are not a text or a list"),
        ("c.json", "[1, 2, 3]", "no JSON object"),
        ("c.json", "{", "not valid JSON"),
    ],
)
def test_a_file_that_does_not_fit_says_why(write, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        read_classes(write(name, text), 3)
    assert str(error.value).count("\n") == 0


def test_a_missing_or_binary_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the class file"):
        read_classes(tmp_path / "none.txt", 3)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8"):
        read_classes(tmp_path / "b.txt", 3)
