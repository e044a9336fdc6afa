from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.pairs import LabelledImage, Pair, iter_samples, open_pairs


@pytest.fixture
def root(tmp_path: Path, write_tar) -> Path:
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\n")
    for split, num_shards in (("test", 2), ("train", 1)):
        for shard in range(num_shards):
            members = [(f"s{shard}.jpg", b"i"), (f"s{shard}.cls", b"1")]
            write_tar(tmp_path / split / f"{shard}.tar", members)
        (tmp_path / split / "nshards.txt").write_text(f"{num_shards}\n")
    return tmp_path


def test_the_root_means_its_test_split(root: Path) -> None:
    source = open_pairs(root)
    assert source.kind == "CLIP_benchmark layout, labelled"
    assert source.classnames == ("cat", "dog")
    assert source.templates == ("a photo of a {}.",)
    assert [part.name for part in source.parts()] == ["0.tar", "1.tar"]
    assert [(row.key, row.label) for row in iter_samples(source)] == [("s0", 1), ("s1", 1)]


def test_a_split_may_be_named(root: Path) -> None:
    assert len(open_pairs(root / "train").parts()) == 1
    assert open_pairs(root / "train").classnames == ("cat", "dog")


def test_the_only_split_is_taken(root: Path) -> None:
    (root / "test/nshards.txt").unlink()
    assert len(open_pairs(root).parts()) == 1


def test_several_splits_without_test_are_an_error(root: Path) -> None:
    (root / "test").rename(root / "val")
    with pytest.raises(InputError, match=r"several splits; write one of .*train, .*val"):
        open_pairs(root)


def test_shards_named_by_a_pattern_find_the_same_class_names(root: Path) -> None:
    assert open_pairs(f"{root}/test/{{0..1}}.tar").classnames == ("cat", "dog")


def test_a_missing_shard_is_named(root: Path) -> None:
    (root / "test/1.tar").unlink()
    with pytest.raises(InputError, match=r"1.tar is missing: .*nshards.txt promises 2 shards"):
        open_pairs(root)


def test_missing_nshards_is_named(root: Path) -> None:
    for split in ("test", "train"):
        (root / split / "nshards.txt").unlink()
    with pytest.raises(InputError, match=r"has no test/nshards.txt; write the number of shards there"):
        open_pairs(root)


@pytest.mark.parametrize("text", ["", "two", "0", "-1", "9" * 5000])
def test_nshards_must_be_a_number(root: Path, text: str) -> None:
    (root / "test/nshards.txt").write_text(text)
    with pytest.raises(InputError, match=r"nshards.txt holds .* it must hold the number of shards"):
        open_pairs(root)


def test_a_huge_number_of_shards_stops_at_the_first_that_is_missing(root: Path) -> None:
    (root / "test/nshards.txt").write_text("999999999")
    with pytest.raises(InputError, match=r"2.tar is missing"):
        open_pairs(root)


def test_class_names_without_labels_are_an_error(root: Path, write_tar) -> None:
    for shard in (0, 1):
        write_tar(root / f"test/{shard}.tar", [("a.jpg", b"i"), ("a.txt", b"t")])
    with pytest.raises(InputError, match=r"has class names but its shards hold no labels"):
        open_pairs(root)


def test_pairs_of_a_retrieval_set_have_a_caption_a_line(root: Path, write_tar) -> None:
    (root / "dataset_type.txt").write_text("Retrieval\n")
    write_tar(root / "test/0.tar", [("a.jpg", b"i"), ("a.txt", b"one\n\ntwo\none\n")])
    write_tar(root / "test/1.tar", [("b.jpg", b"i"), ("b.txt", b"\n")])
    source = open_pairs(root)
    first, second = iter_samples(source)
    assert source.classnames is None
    assert isinstance(first, Pair)
    assert first.texts == ("one", "two")
    assert first.fields["caption"] == "one"
    assert second.reason == "its caption is empty"


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("classnames.txt", b"cat\n\ndog\n", "line 2 is blank"),
        ("classnames.txt", "grün".encode("latin-1"), "classnames.txt is not UTF-8"),
        ("zeroshot_classification_templates.txt", b"a photo\n", r"'a photo' must hold one \{c\}"),
        ("zeroshot_classification_templates.txt", b"{c} {c}\n", "must hold one"),
    ],
)
def test_small_files_that_cannot_be_used(root: Path, name: str, data: bytes, message: str) -> None:
    (root / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        open_pairs(root)


def test_templates_may_be_missing(root: Path) -> None:
    (root / "zeroshot_classification_templates.txt").unlink()
    assert open_pairs(root).templates is None


@pytest.mark.parametrize(("name", "num_images"), [("cifar10", 10_000), ("clothing", 372)])
def test_real_sets(data_dir: Path, name: str, num_images: int) -> None:
    source = open_pairs(data_dir / name)
    labels = [row.label for row in iter_samples(source) if isinstance(row, LabelledImage)]
    assert len(labels) == source.num_samples == num_images
    assert source.classnames is not None
    assert set(labels) == set(range(len(source.classnames)))
    assert source.templates
    assert all(template.count("{}") == 1 for template in source.templates)
