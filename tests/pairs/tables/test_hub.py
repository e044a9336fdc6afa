import builtins
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from littune.base.errors import InputError, MissingExtraError
from littune.pairs import BadSample, LabelledImage, Pair, decode, iter_samples, open_pairs
from littune.pairs.tables.hub import HubSpec, parse_hub_spec

datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
datasets.disable_progress_bars()

# datasets leaves files of its own open.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def photos(picture) -> Any:
    images = [Image.open(io.BytesIO(picture(color))) for color in ("red", "blue", "white")]
    features = datasets.Features(
        image=datasets.Image(), thumbnail=datasets.Image(), caption=datasets.Value("string"), n=datasets.Value("int32")
    )
    columns = {"image": images, "thumbnail": images, "caption": ["red", "blue", " "], "n": [1, 2, 3]}
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def labelled(picture) -> Any:
    images = [Image.open(io.BytesIO(picture(color))) for color in ("red", "blue", "white")]
    features = datasets.Features(img=datasets.Image(), label=datasets.ClassLabel(names=["warm", "cold"]))
    return datasets.Dataset.from_dict({"img": images, "label": [0, 1, -1]}, features=features)


def check_photos(spec: str, split: str, num_samples: int | None) -> None:
    source = open_pairs(spec)
    assert (source.kind, source.num_samples, source.classnames) == ("Hugging Face data set", num_samples, None)
    first, second, third = iter_samples(source)
    assert isinstance(first, Pair)
    assert (first.key, first.source, first.texts, first.fields) == (
        "row 1",
        split,
        ("red",),
        {"caption": "red", "n": 1},
    )
    assert isinstance(first.image, bytes)
    assert decode(first.image).getpixel((0, 0)) == (255, 0, 0)
    assert second.texts == ("blue",)
    assert third == BadSample(key="row 3", source=split, reason="its caption is empty")
    (part,) = source.parts()
    assert part.fingerprint() == part.fingerprint()


def test_a_data_set_on_disk(photos: Any, tmp_path: Path) -> None:
    photos.save_to_disk(tmp_path / "saved")
    check_photos(f"hf:{tmp_path}/saved", "train", 3)


def test_splits_on_disk(photos: Any, tmp_path: Path) -> None:
    datasets.DatasetDict({"train": photos, "val": photos}).save_to_disk(tmp_path / "saved")
    check_photos(f"hf:{tmp_path}/saved#val", "val", 3)
    with pytest.raises(InputError, match=r"has several splits \(train, val\); name one, as in hf:.*saved#train"):
        open_pairs(f"hf:{tmp_path}/saved")
    with pytest.raises(InputError, match="has no split 'test'; it has train, val"):
        open_pairs(f"hf:{tmp_path}/saved#test")


def test_a_folder_of_parquet_is_streamed(photos: Any, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    photos.to_parquet(tmp_path / "set/train-0.parquet")
    check_photos(f"hf:{tmp_path}/set", "train", None)


def test_parquet_that_datasets_wrote_is_a_table_too(photos: Any, tmp_path: Path) -> None:
    photos.to_parquet(tmp_path / "t.parquet")
    first, *_ = iter_samples(open_pairs(tmp_path / "t.parquet"))
    assert isinstance(first, Pair)
    assert (first.texts, first.fields) == (("red",), {"caption": "red", "n": 1})
    assert isinstance(first.image, bytes)
    assert decode(first.image).getpixel((0, 0)) == (255, 0, 0)


def test_class_labels_make_a_labelled_set(labelled: Any, tmp_path: Path) -> None:
    labelled.save_to_disk(tmp_path / "saved")
    source = open_pairs(f"hf:{tmp_path}/saved")
    assert source.kind == "Hugging Face data set, labelled"
    assert source.classnames == ("warm", "cold")
    first, second, third = iter_samples(source)
    assert isinstance(first, LabelledImage)
    assert isinstance(second, LabelledImage)
    assert (first.label, second.label) == (0, 1)
    assert third == BadSample(key="row 3", source="train", reason="its label is -1, which is no index of its 2 classes")


def test_several_class_labels_are_an_error(labelled: Any, tmp_path: Path) -> None:
    labelled.add_column("fine", [0, 1, 0]).cast_column("fine", datasets.ClassLabel(names=["a", "b"])).save_to_disk(
        tmp_path / "saved"
    )
    with pytest.raises(InputError, match=r"several labels \(label, fine\)"):
        open_pairs(f"hf:{tmp_path}/saved")


def test_a_folder_of_pictures_with_metadata(tmp_path: Path, picture) -> None:
    (tmp_path / "red.png").write_bytes(picture("red"))
    (tmp_path / "metadata.csv").write_text("file_name,text\nred.png,a red card\n")
    (row,) = iter_samples(open_pairs(f"hf:{tmp_path}"))
    assert isinstance(row, Pair)
    assert row.texts == ("a red card",)
    assert isinstance(row.image, Path)
    assert decode(row.image).getpixel((0, 0)) == (255, 0, 0)


def test_paths_of_a_parquet_may_not_lead_out(tmp_path: Path) -> None:
    cell = pa.array([{"bytes": None, "path": "/etc/passwd"}], pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": cell, "caption": ["x"]}), tmp_path / "t.parquet")
    (row,) = iter_samples(open_pairs(f"hf:{tmp_path}"))
    assert "/etc/passwd leads out" in row.reason


def test_damage_stops_the_reading_and_is_said(tmp_path: Path) -> None:
    for shard in range(2):
        path = tmp_path / f"train-{shard}.parquet"
        pq.write_table(pa.table({"bytes": [b"A" * 500, b"B" * 500], "caption": ["a", "b"]}), path, use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    data = bytearray(path.read_bytes())
    start, size = column.data_page_offset, column.total_compressed_size
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    first, second, stop = iter_samples(open_pairs(f"hf:{tmp_path}"))
    assert (first.key, second.key, stop.key) == ("row 1", "row 2", "row 3")
    assert "reading stopped here" in stop.reason


@pytest.mark.parametrize(
    ("name", "reason"), [("no/such-set", "cannot be loaded"), ("{folder}/empty", "cannot be loaded"), ("", "names no")]
)
def test_what_cannot_be_loaded_is_one_line(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=f"hf:.*{reason}") as caught:
        open_pairs("hf:" + name.format(folder=tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("hf:a/b", HubSpec(name="a/b", config=None, split=None)),
        ("hf:a/b#test", HubSpec(name="a/b", config=None, split="test")),
        ("hf:a/b@en", HubSpec(name="a/b", config="en", split=None)),
        ("hf:a/b@en#val", HubSpec(name="a/b", config="en", split="val")),
    ],
)
def test_the_grammar(spec: str, expected: HubSpec) -> None:
    assert parse_hub_spec(spec) == expected


def test_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_hub_spec("hf:~/a#test") == HubSpec(name=f"{tmp_path}/a", config=None, split="test")


def test_a_folder_may_have_the_signs_of_the_grammar_in_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "a@b#c"
    folder.mkdir()
    assert parse_hub_spec(f"hf:{folder}") == HubSpec(name=str(folder), config=None, split=None)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_datasets(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_datasets)
    with pytest.raises(MissingExtraError, match=r"pip install 'littune\[hf\]'"):
        open_pairs("hf:a/b")
