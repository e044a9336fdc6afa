from pathlib import Path

import pytest

from littune.base.errors import InputError
from littune.base.files import write_json
from littune.pairs import LabelledImage, Pair, decode, iter_samples, open_pairs
from tests.pairs.conftest import MakePicture, WriteTar


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    "spec",
    ["https://example.org/{0..9}.tar", "http://x/a.csv", "s3://bucket/a.tar", "file:///etc/passwd", "pipe:cat a.tar"],
)
def test_nothing_is_downloaded_or_run(spec: str) -> None:
    with pytest.raises(InputError, match="only files on this machine are read"):
        open_pairs(spec)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing does not exist; a data set of Hugging Face is written hf:"):
        open_pairs(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"train-\*.tar matches no file"):
        open_pairs(f"{tmp_path}/train-*.tar")


def test_a_store_is_not_opened_here(tmp_path: Path) -> None:
    write_json(tmp_path / "manifest.json", {"format": "littune-store", "version": 1})
    with pytest.raises(InputError, match=r"is a store of embeddings: .* hand it to train, eval or search"):
        open_pairs(tmp_path)


def test_another_manifest_does_not_make_a_store(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a.txt")
    write_json(tmp_path / "manifest.json", {"name": "my app"})
    assert open_pairs(tmp_path).kind == "images with texts beside them"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no images, shards or tables"),
        (["notes.md"], "holds no images, shards or tables"),
        (["0.tar", "0.parquet"], r"named one by one or by a pattern: write .*/\*.tar"),
        (["a.csv", "a.jpg"], r"write .*/\*.csv"),
        (["a.jpg", "b.jpg"], "holds images without texts: put NAME.txt beside"),
        (["a.jpg", "x/b.jpg"], "holds images and folders of images"),
        (["a.jpg", "x/b.jpg", "x/b.txt"], "holds images and folders of images"),
        (["train/cat/a.jpg", "val/cat/b.jpg"], "nor do the folders in it: name a folder further down"),
        (["classnames.txt", "cat/a.jpg"], "looks like a CLIP_benchmark set but has no test/nshards.txt"),
    ],
)
def test_a_folder_that_holds_something_else(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_pairs(touch(tmp_path, *names))


def test_folders_of_pairs_in_a_folder_are_pairs(tmp_path: Path) -> None:
    source = open_pairs(touch(tmp_path, "x/a.jpg", "x/a.txt", "y/b.jpg", "y/b.txt"))
    assert source.kind == "images with texts beside them"
    assert len(source.parts()) == 2


def test_a_source_says_what_was_chosen(tmp_path: Path, picture: MakePicture, write_tar: WriteTar) -> None:
    touch(tmp_path, "x/a.jpg", "x/a.txt")
    write_tar(tmp_path / "0.tar", [("a.seg.png", picture()), ("a.png", picture()), ("a.json", b'{"alt": "b"}')])
    (tmp_path / "t.csv").write_text("photo,alt\na.jpg,b\n")
    chosen = [
        open_pairs(tmp_path / "x", texts=["alt"]),
        open_pairs(tmp_path / "0.tar", texts=["alt"], image_field="seg.png"),
        open_pairs(tmp_path / "t.csv", texts=["alt"], image_field="photo"),
        open_pairs(tmp_path / "x"),
    ]
    assert [(source.texts, source.image_field) for source in chosen] == [
        (("alt",), None),
        (("alt",), "seg.png"),
        (("alt",), "photo"),
        ((), None),
    ]


def test_a_folder_a_class_has_no_texts_to_choose(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.jpg", "y/b.jpg")
    with pytest.raises(InputError, match="labels but no texts beside the images: leave --texts out"):
        open_pairs(tmp_path, texts=["caption"])
    with pytest.raises(InputError, match="--image-field jpg is for tables and tar shards"):
        open_pairs(tmp_path, image_field="jpg")


@pytest.mark.parametrize(
    ("names", "spec", "message"),
    [
        (["a.zip"], "a.zip", "is no file of pairs; those end in .tar"),
        (["a.tar.gz"], "a.tar.gz", "not compressed"),
        (["0.tar", "0.json"], "0.*", r"several kinds \(.json, .tar\); name one kind, as in \*.tar"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, names: list[str], spec: str, message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        open_pairs(f"{tmp_path}/{spec}")


def test_the_home_folder_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/a.txt")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_pairs("~/photos").num_samples == 1
    assert open_pairs(Path("~/photos")).spec == "~/photos"
    assert open_pairs("~/photos/").spec == "~/photos"


@pytest.mark.parametrize(
    ("spec", "num_images", "num_texts"),
    [
        ("flickr8k-1k/train-*.tar", 700, 3500),
        ("flickr8k-1k/val-00000.tar", 100, 500),
        ("flickr8k-1k/test-{00000..00000}.tar", 200, 1000),
        ("emoji-3d/{train,val,test}-00000.tar", 1599, 1599),
        ("tuxpaint/*.tar", 538, 538),
    ],
)
def test_real_pairs(data_dir: Path, spec: str, num_images: int, num_texts: int) -> None:
    source = open_pairs(f"{data_dir}/{spec}")
    rows = list(iter_samples(source))
    pairs = [row for row in rows if isinstance(row, Pair)]
    assert len(rows) == len(pairs) == source.num_samples == num_images
    assert sum(len(pair.texts) for pair in pairs) == num_texts
    assert len({(pair.source, pair.key) for pair in pairs}) == num_images
    assert all(pair.texts[0] == pair.fields["caption"] for pair in pairs)
    assert all(decode(pair.image).mode == "RGB" for pair in pairs[::50])


def test_real_translations_and_keywords(data_dir: Path) -> None:
    german = open_pairs(f"{data_dir}/flickr8k-1k/*.tar", texts=["translations.de"])
    rows = list(iter_samples(german))
    assert (len(rows), sum(isinstance(row, Pair) for row in rows)) == (1000, 937)
    emoji = open_pairs(f"{data_dir}/emoji-3d/val-*.tar", texts=["captions", "keywords"])
    assert sum(len(row.texts) for row in iter_samples(emoji) if isinstance(row, Pair)) > 300


def test_real_pairs_are_the_same_in_every_kind_of_source(data_dir: Path, tmp_path: Path) -> None:
    """The val split of flickr8k-1k, written out as a folder and as a table, gives the same pairs."""
    shards = [row for row in iter_samples(open_pairs(f"{data_dir}/flickr8k-1k/val-*.tar")) if isinstance(row, Pair)]
    lines = ["image,caption"]
    for row in shards:
        assert isinstance(row.image, bytes)
        (tmp_path / f"{row.key}.jpg").write_bytes(row.image)
        write_json(tmp_path / f"{row.key}.json", dict(row.fields))
        for text in row.texts:
            quoted = text.replace('"', '""')
            lines.append(f'{row.key}.jpg,"{quoted}"')
    expected = {row.key: row.texts for row in shards}
    folder = [row for row in iter_samples(open_pairs(tmp_path)) if isinstance(row, Pair)]
    assert {row.key: row.texts for row in folder} == expected
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    table = [row for row in iter_samples(open_pairs(tmp_path / "captions.csv")) if isinstance(row, Pair)]
    assert {row.key.removesuffix(".jpg"): row.texts for row in table} == expected
    assert all(Path(row.image).read_bytes() == shard.image for row, shard in zip(table, shards, strict=True))


def test_real_labelled_images_by_pattern(data_dir: Path) -> None:
    source = open_pairs(f"{data_dir}/cifar10/test/{{0..0}}.tar")
    labels = [row.label for row in iter_samples(source) if isinstance(row, LabelledImage)]
    assert [labels.count(label) for label in range(10)] == [100] * 10
