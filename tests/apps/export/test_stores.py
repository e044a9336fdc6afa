"""Stores in other formats: read back by their own libraries, in a process without littune, they hold the same."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import littune.apps.export.stores as exports
from littune.apps.export.base import Exported
from littune.apps.export.stores import to_lance, to_npy, to_parquet
from littune.base.errors import InputError, MissingExtraError
from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore
from littune.store.views import Views
from littune.store.writer import Batch, Row, open_writer
from littune.towers.image.tower import Identity

DIM = 16
To = Callable[[EmbeddingStore, Path], Exported]
ALL = pytest.mark.parametrize("to", [to_npy, to_parquet, to_lance])

# What a user does after ``how_to_load``, whose names it uses.
SAVE = {
    to_npy: 'np.save("found.npy", embeddings); keys = rows["key"].to_pylist()',
    to_parquet: 'import numpy as np; np.save("found.npy", embeddings); keys = rows["key"].to_pylist()',
    to_lance: (
        "import numpy as np; table = rows.to_table(); keys = table['key'].to_pylist();"
        'np.save("found.npy", table["vector"].combine_chunks().flatten().to_numpy().reshape(len(keys), -1))'
    ),
}
TELL = '\nimport json, sys; json.dump(keys, open("keys.json", "w")); assert "littune" not in sys.modules'


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows make several blocks, and several files."""
    monkeypatch.setattr(exports, "_BLOCK", 4)
    monkeypatch.setattr(exports, "_BLOCKS_PER_FILE", 2)


def make(folder: Path, *, num: int = 23, views: Views | None = None, finish: bool = True) -> EmbeddingStore:
    identity = Identity(weights="w" * 64, pooling="own", dim=DIM, preprocess="p")
    settings = Settings(
        kind="images",
        pairs="by hand",
        texts=(),
        tower="timm:x",
        identity=identity,
        classnames=None,
        templates=None,
        views=views,
    )
    rows = [
        Row(key=f"k{n}", source="s", texts=(f"one {n}", "two") if n % 3 else (), label=n, fields={"de": f"Bild {n}"})
        for n in range(num)
    ]
    embeddings = np.random.default_rng(0).normal(size=(num, DIM)).astype(np.float32)
    with open_writer(folder, settings, {}) as writer:
        for start in range(0, num, 5):
            some = embeddings[start : start + 5]
            more = [some] * (views.num if views else 0)
            writer.append(Batch(embeddings=some, views=more, rows=rows[start : start + 5]))
            writer.commit()
        if finish:
            writer.finish()
    return EmbeddingStore.open(folder)


def export(to: To, store: EmbeddingStore, out: Path) -> Exported:
    out.mkdir()
    return to(store, out)


def load(exported: Exported, then: str, folder: Path) -> tuple[np.ndarray, list[str]]:
    code = exported.how_to_load + then + TELL
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npy"), json.loads((folder / "keys.json").read_text())


@ALL
def test_its_own_library_reads_the_same_rows_in_the_same_order(tmp_path: Path, to: To) -> None:
    store = make(tmp_path / "store")
    exported = export(to, store, tmp_path / "out")
    embeddings, keys = load(exported, SAVE[to], tmp_path / "out")
    assert keys == store.keys()
    np.testing.assert_array_equal(embeddings, store.embeddings())  # float32 holds every float16 exactly
    about = json.loads((tmp_path / "out" / "store.json").read_text())
    assert (about["rows"], about["dim"], about["image_tower"]) == (23, DIM, "timm:x")
    assert about["identity"] == store.identity.to_dict()
    assert len(exported.notes) == 1


def test_float16_stays_float16(tmp_path: Path) -> None:
    store = make(tmp_path / "store")
    export(to_npy, store, tmp_path / "out")
    embeddings = np.load(tmp_path / "out" / "embeddings.npy", allow_pickle=False)
    assert embeddings.dtype == np.float16
    np.testing.assert_array_equal(embeddings, store.embeddings())
    rows = pq.read_table(tmp_path / "out" / "metadata.parquet")
    assert [tuple(texts) for texts in rows["captions"].to_pylist()] == store.texts()
    assert rows["label"].to_pylist() == list(range(23))
    assert json.loads(rows["fields"][7].as_py()) == {"de": "Bild 7"}


def test_pandas_and_embedding_reader_read_the_parquet_files(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    store = make(tmp_path / "store")
    export(to_parquet, store, tmp_path / "out")
    rows = tmp_path / "out" / "rows"
    assert [file.name for file in sorted(rows.iterdir())] == ["0000.parquet", "0001.parquet", "0002.parquet"]
    frame = pandas.read_parquet(rows)
    np.testing.assert_array_equal(np.stack(frame["embedding"]), store.embeddings().astype(np.float32))
    assert frame["caption"][1] == "one 1"
    code = (
        "from embedding_reader import EmbeddingReader; import numpy as np\n"
        'reader = EmbeddingReader("rows", "parquet", embedding_column="embedding", meta_columns=["key"])\n'
        "found = list(reader(batch_size=10, show_progress=False))\n"
        'np.save("found.npy", np.concatenate([rows for rows, _ in found]))\n'
        'keys = [key for _, about in found for key in about["key"]]'
    )
    pytest.importorskip("embedding_reader")
    embeddings, keys = load(Exported(how_to_load=code), "", tmp_path / "out")
    np.testing.assert_array_equal(embeddings, store.embeddings().astype(np.float32))
    assert keys == store.keys()


def test_lance_searches_what_it_was_given(tmp_path: Path) -> None:
    lance = pytest.importorskip("lance")
    store = make(tmp_path / "store")
    export(to_lance, store, tmp_path / "out")
    rows = lance.dataset(tmp_path / "out" / "rows.lance")
    embeddings = store.embeddings().astype(np.float32)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    for asked in (0, 13):
        nearest = rows.to_table(nearest={"column": "vector", "q": embeddings[asked], "k": 4, "metric": "cosine"})
        best = np.argsort(-(unit @ unit[asked]))[:4]
        assert nearest["key"].to_pylist() == [f"k{row}" for row in best]


@ALL
def test_of_a_foreign_store_all_columns_are_kept(tmp_path: Path, to: To) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number, columns in enumerate(
        [{"key": [1, 2], "similarity": [0.5, None]}, {"key": [3, 4], "NSFW": ["no", "no"]}]
    ):
        np.save(folder / f"img_emb_{number}.npy", np.full((2, DIM), number, np.float32))
        pq.write_table(pa.table(columns), folder / f"metadata_{number}.parquet")
    store = EmbeddingStore.open(folder, allow_foreign=True)
    exported = export(to, store, tmp_path / "out")
    then = SAVE[to] + '; assert {"similarity", "NSFW"} < set(rows.schema.names)'
    embeddings, keys = load(exported, then, tmp_path / "out")
    assert keys == [1, 2, 3, 4]
    np.testing.assert_array_equal(embeddings, store.embeddings())
    assert "which image tower" in exported.notes[-1]
    assert json.loads((tmp_path / "out" / "store.json").read_text())["identity"] is None


@ALL
def test_views_are_left_out_and_it_says_so(tmp_path: Path, to: To) -> None:
    store = make(tmp_path / "store", views=Views(num=2, augment="inception", flip=False, seed=0))
    assert "the 2 augmented views of each image are left out" in export(to, store, tmp_path / "out").notes


@ALL
def test_an_unfinished_store_is_refused(tmp_path: Path, to: To) -> None:
    store = make(tmp_path / "store", finish=False)
    with pytest.raises(InputError, match=r"is unfinished \(23 rows so far\)"):
        export(to, store, tmp_path / "out")


@ALL
def test_a_store_without_rows_is_refused(tmp_path: Path, to: To) -> None:
    with pytest.raises(InputError, match="has no rows to export"):
        export(to, make(tmp_path / "store", num=0), tmp_path / "out")


@pytest.mark.parametrize(("to", "column"), [(to_parquet, "embedding"), (to_lance, "vector")])
def test_a_column_that_is_in_the_way(tmp_path: Path, to: To, column: str) -> None:
    np.save(tmp_path / "img_emb_0.npy", np.ones((1, DIM), np.float32))
    pq.write_table(pa.table({column: ["x"]}), tmp_path / "metadata_0.parquet")
    store = EmbeddingStore.open(tmp_path, allow_foreign=True)
    with pytest.raises(InputError, match=f"has a column '{column}' already"):
        export(to, store, tmp_path / "out")


def test_without_lance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(MissingExtraError, match=r"littune\[lance\]"):
        export(to_lance, make(tmp_path / "store", num=1), tmp_path / "out")
