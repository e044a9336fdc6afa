import os
from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.pairs import BadSample, LabelledImage, Pair, iter_samples, open_pairs
from littune.pairs.folders import fingerprint_of_files


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    (root / "more/deep").mkdir(parents=True)
    (root / "a.JPG").write_bytes(b"A")
    (root / "a.txt").write_text(" one\n")
    (root / "b.v2.png").write_bytes(b"B")
    (root / "b.v2.json").write_text('{"captions": ["two", "three"], "x": 1}')
    (root / "more/a.jpg").write_bytes(b"M")
    (root / "more/a.txt").write_text("four")
    (root / "more/deep/c.webp").write_bytes(b"C")
    (root / "more/deep/c.txt").write_text("five")
    (root / ".hidden.jpg").write_bytes(b"H")
    (root / "Thumbs.db").write_bytes(b"T")
    return root


def test_images_with_texts_beside_them(pairs: Path) -> None:
    source = open_pairs(pairs)
    assert (source.kind, source.num_samples, source.classnames) == ("images with texts beside them", 4, None)
    fields = {"captions": ["two", "three"], "x": 1}
    assert list(iter_samples(source)) == [
        Pair(key="a", source="photos", image=pairs / "a.JPG", fields={"caption": "one"}, texts=("one",)),
        Pair(key="b.v2", source="photos", image=pairs / "b.v2.png", fields=fields, texts=("two", "three")),
        Pair(key="a", source="photos/more", image=pairs / "more/a.jpg", fields={"caption": "four"}, texts=("four",)),
        Pair(
            key="c",
            source="photos/more/deep",
            image=pairs / "more/deep/c.webp",
            fields={"caption": "five"},
            texts=("five",),
        ),
    ]


def test_texts_can_be_chosen(pairs: Path) -> None:
    rows = list(iter_samples(open_pairs(pairs, texts=["caption"])))
    assert [row.key for row in rows if isinstance(row, Pair)] == ["a", "a", "c"]
    assert rows[1] == BadSample(key="b.v2", source="photos", reason="it has no text under caption (it has captions, x)")


def test_rows_that_cannot_be_used_are_named_with_why(pairs: Path) -> None:
    (pairs / "alone.jpg").write_bytes(b"I")
    (pairs / "lost.txt").write_text("text")
    (pairs / "twice.jpg").write_bytes(b"I")
    (pairs / "twice.png").write_bytes(b"I")
    (pairs / "twice.txt").write_text("text")
    (pairs / "empty.jpg").write_bytes(b"I")
    (pairs / "empty.txt").write_text("\n")
    (pairs / "latin.jpg").write_bytes(b"I")
    (pairs / "latin.txt").write_bytes("grün".encode("latin-1"))
    (pairs / "json.jpg").write_bytes(b"I")
    (pairs / "json.json").write_text("[1]")
    source = open_pairs(pairs)
    bad = {row.key: row.reason for row in iter_samples(source) if isinstance(row, BadSample)}
    assert bad == {
        "alone": "an image without its text: no .txt or .json of this name lies beside it",
        "lost": "a text without its image: no image of this name lies beside it",
        "twice": "several images have this name (twice.jpg, twice.png): rename all but one",
        "empty": "its caption is empty",
        "latin": "its .txt is not UTF-8 (byte 2); save it as UTF-8",
        "json": "its .json holds no JSON object",
    }


def test_a_folder_a_class(tmp_path: Path) -> None:
    for name in ("dog/2.jpg", "dog/1.png", "cat/young/1.jpg", "cat/3.jpg", "dog/notes.md", "empty/readme.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"I")
    source = open_pairs(tmp_path)
    assert source.kind == "a folder a class, labelled"
    assert source.classnames == ("cat", "dog")
    assert source.num_samples == 4
    rows = [row for row in iter_samples(source) if isinstance(row, LabelledImage)]
    assert [(row.source, row.key, row.label) for row in rows] == [
        ("cat", "3.jpg", 0),
        ("cat", "young/1.jpg", 0),
        ("dog", "1.png", 1),
        ("dog", "2.jpg", 1),
    ]
    assert rows[1].image == tmp_path / "cat/young/1.jpg"


def test_names_that_are_no_utf8(pairs: Path) -> None:
    odd = os.fsencode(pairs) + b"/gr\xfcn"
    Path(os.fsdecode(odd + b".jpg")).write_bytes(b"I")
    Path(os.fsdecode(odd + b".txt")).write_text("text")
    row = next(row for row in iter_samples(open_pairs(pairs)) if row.key.startswith("gr"))
    assert row.key.encode() == b"gr\\xfcn"
    assert isinstance(row, Pair)
    assert isinstance(row.image, Path)
    assert row.image.read_bytes() == b"I"


def test_the_fingerprint_follows_names_sizes_and_times(tmp_path: Path) -> None:
    def mark() -> str:
        return fingerprint_of_files(tmp_path, sorted(path.name for path in tmp_path.iterdir()))

    (tmp_path / "a.jpg").write_bytes(b"A")
    marks = [mark()]
    assert mark() == marks[0]
    os.utime(tmp_path / "a.jpg", (1, 1))
    marks.append(mark())
    (tmp_path / "a.jpg").rename(tmp_path / "b.jpg")
    marks.append(mark())
    (tmp_path / "c.jpg").write_bytes(b"C")
    marks.append(mark())
    assert len(set(marks)) == 4
    parts = open_pairs(_class_folders(tmp_path)).parts()
    assert parts[0].fingerprint() != parts[1].fingerprint()


def _class_folders(root: Path) -> Path:
    for name in ("x/a/1.jpg", "x/b/1.jpg", "x/b/2.jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"I")
    return root / "x"


def test_links_to_folders_above_do_not_loop(pairs: Path) -> None:
    (pairs / "more/loop").symlink_to(pairs)
    assert len(list(iter_samples(open_pairs(pairs)))) == 4


def test_a_folder_that_vanishes_is_an_input_error(pairs: Path) -> None:
    source = open_pairs(pairs)
    pairs.rename(pairs.with_name("elsewhere"))
    with pytest.raises(InputError, match="photos cannot be read: No such file"):
        list(iter_samples(source))
