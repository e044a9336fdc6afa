import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.base.errors import InputError
from littune.pairs import BadSample, Pair, iter_samples, open_pairs
from littune.pairs.rows import RowError
from littune.pairs.tables import part as part_module
from littune.pairs.tables.part import image_in, merge_rows, path_within


def csv(folder: Path, *lines: str) -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join(lines))
    return path


def test_rows_of_paths(tmp_path: Path) -> None:
    source = open_pairs(csv(tmp_path, "image,caption,n", "x/a.jpg,one,1", " b.jpg ,two,2"))
    assert (source.kind, source.num_samples, source.classnames) == ("CSV table", 2, None)
    assert list(iter_samples(source)) == [
        Pair(
            key="x/a.jpg",
            source="t.csv",
            image=tmp_path / "x/a.jpg",
            fields={"image": "x/a.jpg", "caption": "one", "n": "1"},
            texts=("one",),
        ),
        Pair(
            key="b.jpg",
            source="t.csv",
            image=tmp_path / "b.jpg",
            fields={"image": "b.jpg", "caption": "two", "n": "2"},
            texts=("two",),
        ),
    ]


def test_rows_in_a_row_that_share_a_path_are_one_image(tmp_path: Path) -> None:
    lines = ["image,caption,n", "a.jpg,one,1", "a.jpg,two,1", "bad", "a.jpg,three,1", "b.jpg,four,2", "a.jpg,five,1"]
    source = open_pairs(csv(tmp_path, *lines))
    bad, first, second, again = iter_samples(source)
    assert isinstance(bad, BadSample)
    assert isinstance(first, Pair)
    assert isinstance(second, Pair)
    assert first.texts == ("one", "two", "three")
    assert first.fields == {"image": "a.jpg", "caption": ["one", "two", "three"], "n": "1"}
    assert second.texts == ("four",)
    assert again == BadSample(
        key="a.jpg",
        source="t.csv",
        reason="its key occurs twice in this table; rows of one image must follow each other",
    )
    assert source.num_samples == 4


def test_rows_of_bytes_are_numbered(tmp_path: Path) -> None:
    table = pa.table(
        {"jpg": [b"A", b"A", None], "captions": [["one", "two"], ["three"], ["four"]], "x": [1.5, None, 2]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    source = open_pairs(tmp_path / "t.parquet")
    assert source.num_samples == 3
    assert list(iter_samples(source)) == [
        Pair(
            key="row 1",
            source="t.parquet",
            image=b"A",
            fields={"captions": ["one", "two"], "x": 1.5},
            texts=("one", "two"),
        ),
        Pair(key="row 2", source="t.parquet", image=b"A", fields={"captions": ["three"], "x": None}, texts=("three",)),
        BadSample(key="row 3", source="t.parquet", reason="its image is empty"),
    ]


def test_a_key_column_names_the_rows(tmp_path: Path) -> None:
    table = pa.table({"bytes": [b"A", b"B", b"C", b"D"], "caption": list("abcd"), "key": [7, 8, 7, None]})
    pq.write_table(table, tmp_path / "t.parquet")
    first, second, twice, empty = iter_samples(open_pairs(tmp_path / "t.parquet"))
    assert (first.key, second.key, twice.key, empty.key) == ("7", "8", "7", "row 4")
    assert "its key occurs twice" in twice.reason
    assert empty.reason == "its key is empty"


def test_rows_that_cannot_be_used_are_named_with_why(tmp_path: Path) -> None:
    lines = [
        "image,caption",
        ",one",
        "a.jpg, ",
        "/etc/passwd,x",
        "../up.jpg,x",
        "x/../../up.jpg,x",
        "https://x/y.jpg,x",
    ]
    rows = list(iter_samples(open_pairs(csv(tmp_path, *lines))))
    assert [(row.key, row.reason) for row in rows if isinstance(row, BadSample)] == [
        ("line 2", "its image is empty"),
        ("line 4", _leads_out("/etc/passwd")),
        ("line 5", _leads_out("../up.jpg")),
        ("line 6", _leads_out("x/../../up.jpg")),
        ("line 7", "its image https://x/y.jpg is a URL, and nothing is downloaded here: img2dataset does that"),
        ("a.jpg", "its caption is empty"),
    ]
    assert len(rows) == 6


def _leads_out(name: str) -> str:
    return f"its image {name} leads out of the table's folder: paths must be relative to it and stay in it"


def test_image_in(tmp_path: Path) -> None:
    assert image_in(b"A", tmp_path) == b"A"
    assert image_in({"bytes": b"A", "path": "/x"}, tmp_path) == b"A"
    assert image_in({"bytes": None, "path": "a.jpg"}, tmp_path) == tmp_path / "a.jpg"
    for cell in ({"bytes": None, "path": "/etc/passwd"}, {}, "", " ", None, 3, ["a.jpg"], b""):
        with pytest.raises(RowError, match="its image"):
            image_in(cell, tmp_path)


def test_path_within(tmp_path: Path) -> None:
    assert path_within(tmp_path, "./a/b..c.jpg") == tmp_path / "a/b..c.jpg"


def test_merge_rows() -> None:
    assert merge_rows([{"a": 1, "b": 2}]) == {"a": 1, "b": 2}
    assert merge_rows([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == {"a": 1, "b": [2, 3], "c": [None, 4]}


def test_texts_and_image_can_be_chosen(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"photo": "a.jpg", "path": "x", "meta": {"de": "eins"}}\n{"photo": "b.jpg", "path": "x"}\n{"path": "y"}'
    )
    source = open_pairs(tmp_path / "t.jsonl", texts=["meta.de"], image_field="photo")
    first, second, third = iter_samples(source)
    assert isinstance(third, BadSample) or isinstance(first, Pair)
    by_key = {row.key: row for row in (first, second, third)}
    assert by_key["a.jpg"].texts == ("eins",)
    assert "no text under meta.de" in by_key["b.jpg"].reason
    assert by_key["line 3"].reason == "its image is empty"


def test_several_tables_are_parts(tmp_path: Path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        csv(tmp_path / name, "path,title", f"a.jpg,{name}")
    source = open_pairs(f"{tmp_path}/*/t.csv")
    assert [part.name for part in source.parts()] == ["x/t.csv", "y/t.csv"]
    assert [(row.image, row.texts) for row in iter_samples(source) if isinstance(row, Pair)] == [
        (tmp_path / "x/a.jpg", ("x",)),
        (tmp_path / "y/a.jpg", ("y",)),
    ]
    first, second = source.parts()
    assert first.fingerprint() != second.fingerprint()


def test_unknown_columns_are_an_error_that_names_the_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"t.csv has no column of images; .* it has url, caption"):
        open_pairs(csv(tmp_path, "url,caption", "x,y"))


def test_large_tables_of_paths_are_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_module, "_MAX_COUNTED_BYTES", 10)
    assert open_pairs(csv(tmp_path, "image,caption", "a.jpg,one")).num_samples is None


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, suffix: str) -> None:
    def peak(num_rows: int) -> int:
        path = tmp_path / f"t.{suffix}"
        with open(path, "w") as file:
            file.write("image,caption\n" if suffix == "csv" else "")
            for row in range(num_rows):
                text = f"a photo of number {row} " * 40
                line = f"{row}.jpg,{text}" if suffix == "csv" else f'{{"image": "{row}.jpg", "caption": "{text}"}}'
                file.write(line + "\n")
        source = open_pairs(path)
        tracemalloc.start()
        assert sum(isinstance(row, Pair) for row in iter_samples(source)) == num_rows
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(10)
    # 1.7 MB more of text, 0.05 MB more of hashed keys.
    assert peak(2000) < peak(200) + 300_000
