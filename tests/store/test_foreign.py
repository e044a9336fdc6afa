"""Stores that others wrote: every published layout, rows that belong together, and numbers that can be used."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.base.errors import InputError
from littune.store.foreign import check_foreign, foreign_files, usable
from littune.store.store import EmbeddingStore

LAYOUTS = {
    "clip-retrieval, few parts": ("img_emb/img_emb_{}.npy", "metadata/metadata_{}.parquet"),
    "clip-retrieval, many parts": ("img_emb/img_emb_{:03}.npy", "metadata/metadata_{:03}.parquet"),
    "LAION-5B": ("img_emb/img_emb_{:04}.npy", "laion2B-en-metadata/metadata_{:04}.parquet"),
    "LAION-5B in one folder": ("img_emb_{:04}.npy", "metadata_{:04}.parquet"),
    "PD12M": ("embeddings/pd12m.{:02}.npy", "metadata/pd12m.{:02}.parquet"),
    "of two widths": ("img_emb/img_emb_{}.npy", "metadata/metadata_{:04}.parquet"),
}


def write(folder: Path, number: int, rows: np.ndarray, layout: str = "clip-retrieval, few parts") -> tuple[Path, Path]:
    """A shard; its captions say which row of which shard they are of."""
    paths = [folder / pattern.format(number) for pattern in LAYOUTS[layout]]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
    np.save(paths[0], rows)
    pq.write_table(pa.table({"caption": [f"{number}/{row}" for row in range(len(rows))]}), paths[1])
    return paths[0], paths[1]


def drawn(rows: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_in_the_order_of_its_numbers(tmp_path: Path, layout: str, dtype: type) -> None:
    shards = {number: drawn(2 + number % 3, seed=number).astype(dtype) for number in (10, 2, 9)}
    for number, rows in shards.items():
        write(tmp_path, number, rows, layout)
    (tmp_path / "text_emb_0002.npy").touch()  # clip-retrieval embeds texts too
    store = EmbeddingStore.open(tmp_path, allow_foreign=True)
    expected = np.concatenate([shards[number] for number in (2, 9, 10)]).astype(np.float16)
    np.testing.assert_array_equal(store.embeddings(), expected)
    captions = [f"{number}/{row}" for number in (2, 9, 10) for row in range(len(shards[number]))]
    assert [texts for (texts,) in store.texts()] == captions
    assert all(re.fullmatch(r".*0*(2|9|10)\.parquet", source) for source in store.sources())
    pieces = list(store.iter_embeddings(2))
    assert max(map(len, pieces)) == 2
    np.testing.assert_array_equal(np.concatenate(pieces), expected)
    some = np.array([5, 0, 5, 8])
    np.testing.assert_array_equal(store.take(some), expected[some])


def test_one_file_of_each_needs_no_number(tmp_path: Path) -> None:
    for folder in ("img_emb", "metadata"):
        (tmp_path / folder).mkdir()
    np.save(tmp_path / "img_emb" / "all.npy", drawn(2))
    pq.write_table(pa.table({"caption": ["a", "b"]}), tmp_path / "metadata" / "rows.parquet")
    assert EmbeddingStore.open(tmp_path, allow_foreign=True).texts() == [("a",), ("b",)]


def test_one_file_of_each_belongs_together_unless_both_have_numbers_that_differ(tmp_path: Path) -> None:
    img_emb, metadata = write(tmp_path, 3, drawn(2), "LAION-5B in one folder")
    assert foreign_files(tmp_path) == [(img_emb, metadata)]
    other = metadata.rename(tmp_path / "metadata_4.parquet")  # of another part that was downloaded
    with pytest.raises(InputError, match="number 3 has embeddings and no metadata"):
        foreign_files(tmp_path)
    same = other.rename(tmp_path / "metadata_3.parquet")
    assert foreign_files(tmp_path) == [(img_emb, same)]
    without = same.rename(tmp_path / "metadata_all.parquet")
    assert foreign_files(tmp_path) == [(img_emb, without)]


def test_what_cannot_be_told_apart_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path, 1, drawn(2))
    write(tmp_path, 1, drawn(2), "clip-retrieval, many parts")
    with pytest.raises(InputError, match=r"img_emb_0*1\.npy and .*img_emb_0*1\.npy have one number"):
        foreign_files(tmp_path)
    (tmp_path / "img_emb" / "img_emb_001.npy").rename(tmp_path / "img_emb" / "more.npy")
    with pytest.raises(InputError, match=r"more\.npy has no number in its name"):
        foreign_files(tmp_path)


def test_files_without_a_partner(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        _, metadata = write(tmp_path, number, drawn(2))
    metadata.unlink()
    with pytest.raises(InputError, match="3 files of embeddings and 2 of metadata .* number 3 has embeddings"):
        foreign_files(tmp_path)
    (tmp_path / "img_emb" / "img_emb_3.npy").unlink()
    (tmp_path / "img_emb" / "img_emb_1.npy").unlink()
    with pytest.raises(InputError, match="number 1 has metadata and no embeddings"):
        foreign_files(tmp_path)


def test_files_that_do_not_go_together_are_named(tmp_path: Path) -> None:
    write(tmp_path, 1, drawn(2))
    img_emb, metadata = write(tmp_path, 2, drawn(2, dim=4))
    with pytest.raises(InputError, match=r"img_emb_2\.npy holds embeddings of 4 numbers and img_emb_1\.npy of 3"):
        check_foreign(foreign_files(tmp_path))
    np.save(img_emb, drawn(3))
    with pytest.raises(InputError, match=r"metadata_2\.parquet has 2 rows and img_emb_2\.npy has 3"):
        check_foreign(foreign_files(tmp_path))
    np.save(img_emb, np.zeros((2, 0), np.float32))
    with pytest.raises(InputError, match=r"img_emb_2\.npy holds 2 × 0 of float32"):
        check_foreign(foreign_files(tmp_path))
    np.save(img_emb, np.zeros((2, 3), np.int64))
    with pytest.raises(InputError, match=r"img_emb_2\.npy holds 2 × 3 of int64"):
        check_foreign(foreign_files(tmp_path))
    np.save(img_emb, drawn(2))
    assert check_foreign(foreign_files(tmp_path)) == ([2, 2], 3)
    img_emb.write_bytes(img_emb.read_bytes()[:-3])  # a download that broke off
    with pytest.raises(InputError, match=r"img_emb_2\.npy is missing or damaged"):
        check_foreign(foreign_files(tmp_path))
    metadata.write_bytes(metadata.read_bytes()[:-3])
    np.save(img_emb, drawn(2))
    with pytest.raises(InputError, match=r"metadata_2\.parquet is missing or damaged"):
        check_foreign(foreign_files(tmp_path))


@pytest.mark.parametrize(("value", "said"), [(np.nan, "nan"), (-np.inf, "-inf"), (70_000, "70000")])
def test_a_value_that_is_no_number_is_found_in_its_file_and_row(tmp_path: Path, value: float, said: str) -> None:
    write(tmp_path, 0, drawn(3))
    rows = drawn(5)
    rows[3, 1] = value
    write(tmp_path, 1, rows)
    store = EmbeddingStore.open(tmp_path, allow_foreign=True)
    wrong = rf"img_emb_1\.npy: row 3 .* holds {said}"
    for read in (
        store.embeddings,
        store.verify,
        lambda: list(store.iter_embeddings(2)),
        lambda: store.take(np.array([7, 6, 0])),
    ):
        with pytest.raises(InputError, match=wrong):
            read()
    assert store.take(np.array([7, 5])).shape == (2, 3)


def test_float16_is_not_copied() -> None:
    halves = drawn(4).astype(np.float16)
    assert usable(halves, Path("x"), int) is halves
