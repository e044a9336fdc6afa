import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.base.errors import InputError
from littune.pairs.rows import RowError
from littune.pairs.tables import formats as formats_module
from littune.pairs.tables.formats import FORMATS, Header


def read(path: Path, image: str = "image") -> list[tuple[str, object]]:
    """The rows, a bad one as its reason."""
    rows = FORMATS[path.suffix[1:]].rows(path, image)
    return [(place, str(row) if isinstance(row, RowError) else row) for place, row in rows]


def header(path: Path) -> Header:
    return FORMATS[path.suffix[1:]].header(path)


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbfimage,caption\na.jpg,"one, ""two""\nthree"\n\nb.jpg,\n')
    assert header(path) == Header(columns=("image", "caption"))
    assert read(path) == [
        ("line 3", {"image": "a.jpg", "caption": 'one, "two"\nthree'}),
        ("line 5", {"image": "b.jpg", "caption": ""}),
    ]


def test_tsv(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("image\tcaption\na.jpg\tone, two\n")
    assert read(path) == [("line 2", {"image": "a.jpg", "caption": "one, two"})]


def test_bad_rows_of_a_csv_cost_themselves_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [b"image,caption", b"a.jpg,one,two", b"b.jpg", "c.jpg,grün".encode("latin-1"), b'd.jpg,"x"y', b"e.jpg,good"]
    path.write_bytes(b"\n".join(rows))
    assert read(path) == [
        ("line 2", "it has 3 fields for 2 columns: texts with commas need quotes"),
        ("line 3", "it has 1 fields for 2 columns: texts with commas need quotes"),
        ("line 4", "it is not UTF-8; save the table as UTF-8"),
        ("line 5", "it is malformed (',' expected after '\"'): check its quotes"),
        ("line 6", {"image": "e.jpg", "caption": "good"}),
    ]


def test_a_quote_that_is_never_closed_is_said(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('image,caption\na.jpg,one\nb.jpg,"two\nc.jpg,three\n')
    first, (_, reason) = read(path)
    assert first == ("line 2", {"image": "a.jpg", "caption": "one"})
    assert "malformed (unexpected end of data)" in str(reason)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"", "is empty; its first line must name the columns"),
        ("t.csv", b"\n\n", "is empty"),
        ("t.csv", "image,bild_größe\n".encode("latin-1"), "its first line, the names of the columns, it is not UTF-8"),
        ("t.csv", "image,caption\n".encode("utf-16"), "is not UTF-8"),
        ("t.tsv", b"image\timage\n", "names a column twice"),
        ("t.jsonl", b"", "holds no row that can be read; each line must be a JSON object"),
        ("t.jsonl", b"[1]\n{\n", "holds no row that can be read"),
        ("t.parquet", b"", "is no parquet file, or is truncated"),
        ("t.parquet", b"PAR1" + bytes(100), "is no parquet file, or is truncated"),
    ],
)
def test_headers_that_cannot_be_used(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=f"{name}.*{message}") as caught:
        header(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_jsonl(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"image": "a.jpg", "n": NaN}\n\n[1]\n{"image": \n{"image": "\xff"}\n{"image": "b.jpg"}')
    assert header(path).columns == ("image", "n")
    rows = read(path)
    assert rows[0] == ("line 1", {"image": "a.jpg", "n": None})
    assert [place for place, _ in rows] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    assert [str(row)[:22] for _, row in rows[1:4]] == [
        "it holds no JSON objec",
        "it is not valid JSON (",
        "it is not UTF-8 (byte ",
    ]
    assert rows[4] == ("line 6", {"image": "b.jpg"})


def test_lines_over_the_limit_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats_module, "MAX_TEXT_BYTES", 32)
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n{"a": "' + "x" * 500 + '"}\n{"a": 2}\n{"a": "' + "x" * 22 + '"}\n{"a": 3}')
    assert [place for place, row in read(path) if not isinstance(row, str)] == ["line 1", "line 3", "line 4", "line 5"]
    assert read(path)[1][1] == "it is over the limit of 0 MB"


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    columns = {
        "image": pa.array([{"bytes": b"A", "path": "a.jpg"}, {"bytes": b"B", "path": None}]),
        "caption": ["one", None],
        "mask": [b"M", b"N"],
    }
    pq.write_table(pa.table(columns), path)
    assert header(path) == Header(columns=("image", "caption", "mask"), binary=frozenset({"image", "mask"}), num_rows=2)
    assert read(path) == [
        ("row 1", {"image": {"bytes": b"A", "path": "a.jpg"}, "caption": "one"}),
        ("row 2", {"image": {"bytes": b"B", "path": None}, "caption": None}),
    ]


def test_strings_of_a_parquet_that_are_no_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff\xfe", b"good"]).buffers())
    pq.write_table(pa.table({"image": pa.array([b"A", b"B"]), "caption": bad}), path)
    assert read(path) == [
        ("row 1", "it is not UTF-8; write the table anew with UTF-8 texts"),
        ("row 2", {"image": b"B", "caption": "good"}),
    ]


def test_a_damaged_row_group_costs_its_rows_alone(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pa.table({"image": [bytes([row]) * 1000 for row in range(6)], "caption": list("abcdef")})
    pq.write_table(table, path, row_group_size=2, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    start = column.data_page_offset
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    rows = read(path)
    assert [place for place, _ in rows] == ["row 1", "row 2", "row 3", "row 5", "row 6"]
    assert "the rows from it to 4 cannot be read" in str(rows[2][1])
    assert "\n" not in str(rows[2][1])


def test_memory_does_not_grow_with_a_row_group(tmp_path: Path) -> None:
    def peak(num_rows: int) -> int:
        path = tmp_path / "t.parquet"
        images = [os.urandom(20_000) for _ in range(num_rows)]
        pq.write_table(pa.table({"image": images}), path, write_batch_size=16, use_dictionary=False)
        del images
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() - before for _ in FORMATS["parquet"].rows(path, "image"))

    # The row group holds 40 MB.
    assert peak(2000) < 5_000_000
