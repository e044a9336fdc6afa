"""The columns of others: whichever hold texts, keys or nothing; and all of them, a block at a time."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.base.errors import InputError
from littune.store.metadata import columns_of, fields_of, read_keys, read_rows, read_tables, schema_of, texts_of


def write(folder: Path, number: int, **columns: object) -> Path:
    path = folder / f"metadata_{number}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"caption": " a dog "}, ("a dog",)),
        ({"caption": None}, ()),
        ({"captions": ["a dog", None, "", "a dog", "a cat"], "caption": "none of these"}, ("a dog", "a cat")),
        ({"captions": "a dog"}, ("a dog",)),  # one text, not its letters
        ({"captions": [], "caption": "a dog"}, ("a dog",)),
        ({"caption": 5}, ()),
        ({"url": "a"}, ()),
    ],
)
def test_texts_of_a_foreign_row(row: dict[str, object], texts: tuple[str, ...]) -> None:
    assert texts_of(row, foreign=True) == texts


def test_littune_s_own_texts_are_left_as_they_are() -> None:
    assert texts_of({"captions": [" twice", " twice"]}, foreign=False) == (" twice", " twice")


def test_a_foreign_row_s_fields_are_its_columns_whatever_they_are_called() -> None:
    row = {"fields": "not JSON", "key": 1, "caption": "a dog", "alt": {"de": "ein Hund"}}
    assert fields_of(row, foreign=True) == {"captions": ["a dog"], **row}


def test_only_the_columns_that_fields_need_are_read(tmp_path: Path) -> None:
    path = write(tmp_path, 0, url=["u"], alt=[{"de": "ein Hund"}], **{"meta.fr": ["un chien"]}, caption=["a dog"])
    (row,) = read_rows(path, columns_of(("alt.de", "meta.fr")))
    assert row == {"alt": {"de": "ein Hund"}, "meta.fr": "un chien", "caption": "a dog"}


def test_keys_are_the_first_that_name_the_row(tmp_path: Path) -> None:
    files = [
        write(tmp_path, 0, key=[7, None], image_path=["a.jpg", "b.jpg"]),
        write(tmp_path, 1, image_path=["c.jpg", None]),
        write(tmp_path, 2, url=["u"]),
    ]
    assert list(read_keys(files)) == ["7", "b.jpg", "c.jpg", "3", "4"]


def test_tables_are_cut_alike_whatever_their_files(tmp_path: Path) -> None:
    files = [
        write(tmp_path, 0, n=[0, 1, 2], t=["a", "b", "c"]),
        write(tmp_path, 1, n=[3.5], more=[True]),
        write(tmp_path, 2, n=[4, 5, 6, 7, 8], t=pa.nulls(5)),
    ]
    tables = list(read_tables(files, 4))
    assert [len(table) for table in tables] == [4, 4, 1]
    assert all(table.schema == schema_of(files) for table in tables)
    whole = pa.concat_tables(tables).to_pydict()
    assert whole == {
        "n": [0, 1, 2, 3.5, 4, 5, 6, 7, 8],
        "t": ["a", "b", "c", *[None] * 6],
        "more": [None, None, None, True, *[None] * 5],
    }


def test_files_whose_columns_do_not_go_together(tmp_path: Path) -> None:
    files = [write(tmp_path, 0, n=["a"]), write(tmp_path, 1, n=[[1, 2]])]
    with pytest.raises(InputError, match="other columns than one another"):
        schema_of(files)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 0, n=[1])
    path.write_bytes(path.read_bytes()[:20])
    for read in (lambda: list(read_rows(path, None)), lambda: schema_of([path])):
        with pytest.raises(InputError, match=r"metadata_0\.parquet is damaged"):
            read()
