import json
import tracemalloc
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.pairs import BadSample, LabelledImage, Pair, iter_samples, open_pairs, read_encoded
from littune.pairs.shards import part as part_module


@pytest.fixture
def shard_of(tmp_path: Path, write_tar):
    """Writes a tar of the given members and opens it."""

    def open_it(members, **options):
        source = open_pairs(write_tar(tmp_path / "0.tar", members), **options)
        return source, list(iter_samples(source))

    return open_it


def reasons(rows) -> dict[str, str]:
    return {row.key: row.reason for row in rows if isinstance(row, BadSample)}


def test_pairs_as_img2dataset_writes_them(shard_of) -> None:
    fields = {"captions": ["one", "two"], "caption": "other", "width": 3}
    members = [("a.jpg", b"A"), ("a.txt", b" one\n"), ("a.json", json.dumps(fields).encode())]
    members += [("b.webp", b"B"), ("b.txt", "grün".encode())]
    members += [("c.json", b'{"caption": "three"}'), ("c.png", b"C")]
    source, rows = shard_of(members)
    assert (source.kind, source.num_samples, source.classnames, source.templates) == ("tar shards", 3, None, None)
    assert rows == [
        Pair(key="a", source="0.tar", image=b"A", fields=fields | {"caption": "one"}, texts=("one", "two")),
        Pair(key="b", source="0.tar", image=b"B", fields={"caption": "grün"}, texts=("grün",)),
        Pair(key="c", source="0.tar", image=b"C", fields={"caption": "three"}, texts=("three",)),
    ]


def test_a_picture_can_be_read_again_from_its_place(tmp_path: Path, shard_of) -> None:
    _, rows = shard_of([("a.txt", b"t"), ("a.jpg", b"AA"), ("b.json", b'{"caption": "t"}'), ("b.png", b"B" * 600)])
    for row, size in zip(rows, (2, 600), strict=True):
        assert isinstance(row, Pair) and row.place is not None
        assert (row.place.path, row.place.size) == (tmp_path / "0.tar", size)
        assert read_encoded(row.place) == row.image


def test_texts_can_be_chosen(shard_of) -> None:
    fields = {"captions": ["one"], "translations": {"de": "eins"}, "keywords": ["k", "l"]}
    members = [("a.jpg", b"A"), ("a.json", json.dumps(fields).encode()), ("b.jpg", b"B"), ("b.txt", b"two")]
    _, rows = shard_of(members, texts=["translations.de", "keywords"])
    assert rows[0].texts == ("eins", "k", "l")
    assert "no text under translations.de or keywords (it has caption)" in reasons(rows)["b"]


def test_rows_that_cannot_be_used_are_named_with_why(shard_of) -> None:
    members = [
        ("no_text.jpg", b"i"),
        ("no_image.txt", b"t"),
        ("empty.jpg", b"i"),
        ("empty.txt", b" \n"),
        ("latin.jpg", b"i"),
        ("latin.txt", "grün".encode("latin-1")),
        ("json.jpg", b"i"),
        ("json.json", b"{'a': 1}"),
        ("good.jpg", b"i"),
        ("good.txt", b"t"),
        ("odd.mp3", b"i"),
        ("good.jpg", b"j"),
        ("good.txt", b"u"),
        ("README", b"r"),
    ]
    source, rows = shard_of(members)
    assert [row.key for row in rows if isinstance(row, Pair)] == ["good"]
    assert reasons(rows) == {
        "no_text": "it has no text: its .txt or .json is missing",
        "no_image": "it has no image, only .txt",
        "empty": "its caption is empty",
        "latin": "its .txt is not UTF-8 (byte 2); save it as UTF-8",
        "json": reasons(rows)["json"],
        "odd": "it has no image, only .mp3",
        "good": "its key occurs twice in this tar",
        "README": "it has no image, only a member without a suffix",
    }
    assert reasons(rows)["json"].startswith("its .json is not valid JSON")
    assert source.num_samples == len(rows) == 9


def test_labelled_images(tmp_path: Path, write_tar, shard_of) -> None:
    (tmp_path / "classnames.txt").write_text("cat\ndog\n\n")
    (tmp_path / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na {}.\n")
    members = [("a.jpg", b"A"), ("a.cls", b"1"), ("b.jpg", b"B"), ("b.cls", b"0\n"), ("b.json", b'{"x": 1}')]
    members += [("c.jpg", b"C"), ("c.cls", b"2"), ("d.jpg", b"D"), ("e.jpg", b"E"), ("e.cls", b"cat")]
    source, rows = shard_of(members)
    assert source.kind == "tar shards, labelled"
    assert source.classnames == ("cat", "dog")
    assert source.templates == ("a photo of a {}.", "a {}.")
    assert rows[:2] == [
        LabelledImage(key="a", source="0.tar", image=b"A", fields={}, label=1),
        LabelledImage(key="b", source="0.tar", image=b"B", fields={"x": 1}, label=0),
    ]
    assert reasons(rows) == {
        "c": "its label 2 is not below the number of class names, 2",
        "d": "it has no label: its .cls is missing",
        "e": "its .cls holds 'cat', which is no index of a class",
    }


def test_labels_without_class_names_are_an_error(shard_of) -> None:
    with pytest.raises(InputError, match=r"hold labels \(.cls\) but no classnames.txt lies beside or above"):
        shard_of([("a.jpg", b"A"), ("a.cls", b"1")])


def test_texts_make_pairs_of_labelled_shards(shard_of) -> None:
    members = [("a.jpg", b"A"), ("a.cls", b"1"), ("a.txt", b"one")]
    source, rows = shard_of(members, texts=["caption"])
    assert source.classnames is None
    assert rows[0].texts == ("one",)


def test_the_image_can_be_chosen(shard_of) -> None:
    members = [("a.jpg", b"A"), ("a.seg.png", b"S"), ("a.png", b"P"), ("a.txt", b"one")]
    assert "several images" in reasons(shard_of(members)[1])["a"]
    assert shard_of(members, image_field="png")[1][0].image == b"P"
    assert shard_of(members, image_field=".seg.png")[1][0].image == b"S"


def test_parts_are_named_relative_to_each_other_and_marked_by_contents(tmp_path: Path, write_tar) -> None:
    for folder in ("x", "y"):
        write_tar(tmp_path / folder / "0.tar", [("a.jpg", b"A"), ("a.txt", folder.encode())])
    first, second = open_pairs(f"{tmp_path}/{{x,y}}/0.tar").parts()
    assert (first.name, second.name) == ("x/0.tar", "y/0.tar")
    assert first.fingerprint() == first.fingerprint() != second.fingerprint()
    assert list(first.samples()) == list(first.samples())


def test_a_broken_shard_among_good_ones_costs_its_rows_alone(tmp_path: Path, write_tar) -> None:
    (tmp_path / "0.tar").write_bytes(b"nonsense" * 200)
    write_tar(tmp_path / "1.tar", [("a.jpg", b"A"), ("a.txt", b"one")])
    bad, good = iter_samples(open_pairs(f"{tmp_path}/*.tar"))
    assert isinstance(bad, BadSample)
    assert bad.source == "0.tar"
    assert good.key == "a"


def test_shards_of_which_none_can_be_read_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"nonsense" * 200)
    with pytest.raises(InputError, match="none of its 1 tars holds anything that can be read"):
        open_pairs(tmp_path / "0.tar")


def test_what_img2dataset_says_of_its_shards_is_believed(tmp_path: Path, write_tar) -> None:
    write_tar(tmp_path / "00000.tar", [("a.jpg", b"A"), ("a.txt", b"one")])
    (tmp_path / "00000_stats.json").write_text('{"count": 9, "successes": 7}')
    assert open_pairs(tmp_path / "00000.tar").num_samples == 7


def test_large_shards_are_not_counted(tmp_path: Path, write_tar, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "_MAX_COUNTED_BYTES", 1000)
    write_tar(tmp_path / "0.tar", [("a.jpg", b"A"), ("a.txt", b"one")])
    assert open_pairs(tmp_path / "0.tar").num_samples is None


def test_memory_does_not_grow_with_the_images(tmp_path: Path, write_tar) -> None:
    def peak(num_rows: int) -> int:
        rows = ((f"{row:06d}.{suffix}", b"x" * 6000) for row in range(num_rows) for suffix in ("jpg", "txt"))
        source = open_pairs(write_tar(tmp_path / "0.tar", rows))
        tracemalloc.start()
        assert sum(isinstance(row, Pair) for row in iter_samples(source)) == num_rows
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(10)
    # 16 MB more of contents, 0.05 MB more of hashed keys, and what the garbage collector has not come to yet.
    assert peak(1500) < peak(150) + 400_000
