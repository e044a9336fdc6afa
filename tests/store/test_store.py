import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from littune.base.errors import InputError
from littune.store.manifest import Cursor, Settings
from littune.store.shards import Row, img_emb_path, metadata_path
from littune.store.store import EmbeddingStore, is_store
from littune.store.views import Views
from littune.store.writer import Batch, open_writer
from littune.towers.image.tower import Identity

IDENTITY = Identity(weights="w", pooling="own", dim=3, preprocess="p")


def write(
    folder: Path,
    rows: list[Row],
    *,
    per_shard: int = 2,
    classnames: tuple[str, ...] | None = None,
    views: Views | None = None,
) -> np.ndarray:
    """Write a store; the embeddings that it holds, of the views too where there are any."""
    settings = Settings(
        kind="images",
        pairs="list",
        texts=(),
        tower="t",
        identity=IDENTITY,
        classnames=classnames,
        templates=None,
        views=views,
    )
    shape = (1 + (views.num if views else 0), len(rows), 3)
    embeddings = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with open_writer(folder, settings, {}) as writer:
        for start in range(0, len(rows), per_shard):
            stop = min(start + per_shard, len(rows))
            cursors = {"a": Cursor(fingerprint="f", taken=stop, complete=stop == len(rows))}
            plain, *others = embeddings[:, start:stop]
            writer.append(Batch(embeddings=plain, views=others, rows=rows[start:stop], cursors=cursors))
            writer.commit()
        writer.finish()
    return embeddings.astype(np.float16) if views else embeddings[0].astype(np.float16)


def pair_row(number: int, **fields: object) -> Row:
    return Row(key=f"k{number}", source="a", texts=(f"one {number}", f"two {number}"), fields=fields)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Two shards as clip-retrieval writes them, numbered without leading zeros, beyond nine."""
    for number in (2, 10):
        (tmp_path / "img_emb").mkdir(exist_ok=True)
        (tmp_path / "metadata").mkdir(exist_ok=True)
        np.save(tmp_path / "img_emb" / f"img_emb_{number}.npy", np.full((2, 3), number, np.float32))
        pq.write_table(
            pa.table({"image_path": [f"{number}/0.jpg", f"{number}/1.jpg"], "caption": [f"caption {number}", ""]}),
            tmp_path / "metadata" / f"metadata_{number}.parquet",
        )
    return tmp_path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    embeddings = write(tmp_path, [pair_row(n, extra={"de": f"Bild {n}"}) for n in range(5)])
    store = EmbeddingStore.open(tmp_path)
    assert (store.kind, store.num_rows, store.dim, store.identity) == ("images", 5, 3, IDENTITY)
    assert store.complete
    assert store.keys() == ["k0", "k1", "k2", "k3", "k4"]
    assert store.sources() == ["a"] * 5
    assert store.labels() is None
    np.testing.assert_array_equal(store.embeddings(), embeddings)
    assert store.embeddings().dtype == np.float16
    store.verify()


def test_rows_are_read_in_pieces_and_by_number(tmp_path: Path) -> None:
    embeddings = write(tmp_path, [pair_row(n) for n in range(7)], per_shard=3)
    store = EmbeddingStore.open(tmp_path)
    pieces = list(store.iter_embeddings(2))
    assert [len(piece) for piece in pieces] == [2, 1, 2, 1, 1]
    np.testing.assert_array_equal(np.concatenate(pieces), embeddings)
    some = np.array([6, 0, 3, 3, 2])
    np.testing.assert_array_equal(store.take(some), embeddings[some])
    assert store.take(np.array([], np.int64)).shape == (0, 3)


def test_views_are_taken_row_by_row(tmp_path: Path) -> None:
    views = Views(num=2, augment="inception", flip=False, seed=0)
    embeddings = write(tmp_path, [pair_row(n) for n in range(7)], per_shard=3, views=views)
    store = EmbeddingStore.open(tmp_path)
    assert store.num_views == 2
    np.testing.assert_array_equal(store.embeddings(), embeddings[0])
    random = np.random.default_rng(1)
    rows, chosen = random.integers(0, 7, 50), random.integers(0, 3, 50)
    np.testing.assert_array_equal(store.take(rows, chosen), embeddings[chosen, rows])
    np.testing.assert_array_equal(store.take(rows), embeddings[0, rows])
    store.verify()
    for wrong in (-1, 3):
        with pytest.raises(InputError, match="has 2 views of each row"):
            store.take(rows, np.full(50, wrong))


def test_what_is_mapped_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = write(tmp_path, [pair_row(n) for n in range(9)], per_shard=1)
    monkeypatch.setattr("littune.store.store._MAX_MAPS", 4)
    store = EmbeddingStore.open(tmp_path)
    np.testing.assert_array_equal(store.take(np.arange(9)), embeddings)
    np.testing.assert_array_equal(store.embeddings(), embeddings)
    assert len(store._maps) <= 4


def test_a_store_without_views_has_none_to_take(tmp_path: Path) -> None:
    write(tmp_path, [pair_row(n) for n in range(3)])
    store = EmbeddingStore.open(tmp_path)
    assert store.num_views == 0
    with pytest.raises(InputError, match="has 0 views"):
        store.take(np.array([0]), np.array([1]))


def test_missing_and_damaged_views_are_noticed(tmp_path: Path) -> None:
    views = Views(num=1, augment="inception", flip=False, seed=0)
    write(tmp_path, [pair_row(n) for n in range(3)], views=views)
    path = img_emb_path(tmp_path, 1, 1)
    assert path == tmp_path / "img_emb_v1" / "img_emb_0001.npy"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(InputError, match=r"img_emb_v1/img_emb_0001\.npy is damaged"):
        EmbeddingStore.open(tmp_path).verify()
    for half in (whole[:-2], None):
        path.write_bytes(half) if half else path.unlink()
        with pytest.raises(InputError, match=r"img_emb_v1/img_emb_0001\.npy is missing or damaged"):
            EmbeddingStore.open(tmp_path)


def test_shards_are_in_the_manifest_s_order_under_any_number(tmp_path: Path) -> None:
    embeddings = write(tmp_path, [pair_row(n) for n in range(6)])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["shards"] = [manifest["shards"][number] for number in (2, 0, 1)]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    store = EmbeddingStore.open(tmp_path)
    assert store.keys() == ["k4", "k5", "k0", "k1", "k2", "k3"]
    np.testing.assert_array_equal(store.embeddings(), embeddings[[4, 5, 0, 1, 2, 3]])
    np.testing.assert_array_equal(store.take(np.arange(6)), store.embeddings())
    store.verify()


def test_a_store_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    """Without the choice of images, views and what is said of a shard's number and part."""
    embeddings = write(tmp_path, [pair_row(n) for n in range(5)])
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    del manifest["image_field"], manifest["views"]
    for shard in manifest["shards"]:
        del shard["number"], shard["part"], shard["views_sha256"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    store = EmbeddingStore.open(tmp_path)
    np.testing.assert_array_equal(store.embeddings(), embeddings)
    store.verify()
    assert store.num_views == 0
    write(tmp_path, [])  # the same settings still, or this would be a mismatch


def test_texts_are_the_stores_own_or_any_fields(tmp_path: Path) -> None:
    rows = [
        pair_row(0, captions=["one 0", "two 0"], extra={"de": "Bild 0"}),
        pair_row(1, captions=["others", "were chosen"], keywords=["k", "w", "k"]),
    ]
    write(tmp_path, rows)
    store = EmbeddingStore.open(tmp_path)
    assert store.texts() == [("one 0", "two 0"), ("one 1", "two 1")]
    assert store.texts(("captions",)) == [("one 0", "two 0"), ("others", "were chosen")]
    assert store.texts(("extra.de", "keywords")) == [("Bild 0",), ("k", "w")]
    assert store.texts(("caption",)) == [("one 0",), ("one 1",)]


def test_fields_come_back_whole(tmp_path: Path) -> None:
    fields = {"captions": ["one 0", "two 0"], "caption": "one 0", "n": 5, "nested": {"x": [1, None, "ü"]}}
    write(tmp_path, [pair_row(0, **fields)])
    assert EmbeddingStore.open(tmp_path).fields() == [fields]


def test_labels_and_classnames(tmp_path: Path) -> None:
    rows = [Row(key=str(n), source="a", label=n % 2) for n in range(3)]
    write(tmp_path, rows, classnames=("cat", "dog"))
    store = EmbeddingStore.open(tmp_path)
    assert store.classnames == ("cat", "dog")
    labels = store.labels()
    assert labels is not None
    assert labels.tolist() == [0, 1, 0]
    assert store.texts() == [(), (), ()]
    assert store.fields() == [{}, {}, {}]


def test_its_files_are_those_that_others_read(tmp_path: Path) -> None:
    embeddings = write(tmp_path, [pair_row(n) for n in range(2)])
    np.testing.assert_array_equal(np.load(tmp_path / "img_emb/img_emb_0000.npy", allow_pickle=False), embeddings)
    table = pq.read_table(tmp_path / "metadata/metadata_0000.parquet").to_pylist()
    assert [row["caption"] for row in table] == ["one 0", "one 1"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format"] == "littune-store"
    assert manifest["version"] == 1
    assert [shard["rows"] for shard in manifest["shards"]] == [2]


def test_a_foreign_store_is_read_when_admitted(foreign: Path) -> None:
    with pytest.raises(InputError, match="--allow-foreign"):
        EmbeddingStore.open(foreign)
    store = EmbeddingStore.open(foreign, allow_foreign=True)
    assert (store.kind, store.num_rows, store.dim, store.identity, store.complete) == ("foreign", 4, 3, None, True)
    assert store.embeddings()[:, 0].tolist() == [2, 2, 10, 10]
    assert store.embeddings().dtype == np.float16
    assert store.texts() == [("caption 2",), (), ("caption 10",), ()]
    assert store.texts(("captions",)) == store.texts()
    assert store.keys() == ["2/0.jpg", "2/1.jpg", "10/0.jpg", "10/1.jpg"]
    assert store.sources() == ["metadata_2.parquet"] * 2 + ["metadata_10.parquet"] * 2
    store.verify()


def test_what_it_looks_like(tmp_path: Path, foreign: Path) -> None:
    write(tmp_path / "own", [pair_row(n) for n in range(3)], per_shard=2)
    own = EmbeddingStore.open(tmp_path / "own")
    assert repr(own) == f"EmbeddingStore('{own.path}': 3 rows × {own.dim}, images of {own.manifest.settings.tower})"
    assert repr(EmbeddingStore.open(foreign, allow_foreign=True)).endswith(": 4 rows × 3, foreign)")


def test_a_store_that_lost_its_manifest_is_foreign_and_keeps_its_texts(tmp_path: Path) -> None:
    embeddings = write(tmp_path, [pair_row(n, extra={"de": f"Bild {n}"}) for n in range(3)])
    own = EmbeddingStore.open(tmp_path)
    (tmp_path / "manifest.json").unlink()
    store = EmbeddingStore.open(tmp_path, allow_foreign=True)
    np.testing.assert_array_equal(store.embeddings(), embeddings)
    assert (store.identity, store.kind) == (None, "foreign")
    assert (store.texts(), store.keys(), store.fields()) == (own.texts(), own.keys(), own.fields())
    assert store.texts(("extra.de",)) == [("Bild 0",), ("Bild 1",), ("Bild 2",)]


def test_checksums_change_with_the_embeddings(tmp_path: Path, foreign: Path) -> None:
    write(tmp_path / "own", [pair_row(n) for n in range(3)])
    write(tmp_path / "other", [pair_row(n) for n in range(3)])
    own, other = (EmbeddingStore.open(tmp_path / name).checksums() for name in ("own", "other"))
    assert own == other and len(set(own)) == 2
    before = EmbeddingStore.open(foreign, allow_foreign=True).checksums()
    np.save(foreign / "img_emb" / "img_emb_10.npy", np.full((2, 3), 11, np.float32))
    after = EmbeddingStore.open(foreign, allow_foreign=True).checksums()
    assert [mark == changed for mark, changed in zip(before, after, strict=True)] == [True, False]


def test_the_metadata_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, [pair_row(n) for n in range(5)])
    store = EmbeddingStore.open(tmp_path)
    tables = list(store.iter_metadata(3))
    assert [len(table) for table in tables] == [3, 2]
    assert [key for table in tables for key in table["key"].to_pylist()] == store.keys()
    assert store.metadata_schema() == tables[0].schema


def test_a_foreign_pickle_is_not_loaded(foreign: Path) -> None:
    np.save(foreign / "img_emb" / "img_emb_2.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="img_emb_2"):
        EmbeddingStore.open(foreign, allow_foreign=True)


def test_foreign_files_must_belong_together(foreign: Path) -> None:
    (foreign / "metadata" / "metadata_10.parquet").rename(foreign / "metadata" / "metadata_11.parquet")
    with pytest.raises(InputError, match="not numbered alike"):
        EmbeddingStore.open(foreign, allow_foreign=True)
    pq.write_table(pa.table({"caption": ["just one"]}), foreign / "metadata" / "metadata_10.parquet")
    (foreign / "metadata" / "metadata_11.parquet").unlink()
    with pytest.raises(InputError, match=r"has 1 rows and img_emb_10\.npy has 2"):
        EmbeddingStore.open(foreign, allow_foreign=True)


def test_opening_notices_missing_cut_and_swapped_files(tmp_path: Path) -> None:
    write(tmp_path, [pair_row(n) for n in range(3)], per_shard=2)
    whole = img_emb_path(tmp_path, 0).read_bytes()
    img_emb_path(tmp_path, 0).write_bytes(whole[:-4])
    with pytest.raises(InputError, match=r"img_emb_0000\.npy is missing or damaged"):
        EmbeddingStore.open(tmp_path)
    img_emb_path(tmp_path, 0).write_bytes(img_emb_path(tmp_path, 1).read_bytes())
    with pytest.raises(InputError, match=r"has 2 rows and img_emb_0000\.npy has 1"):
        EmbeddingStore.open(tmp_path)
    img_emb_path(tmp_path, 0).write_bytes(whole)
    metadata_path(tmp_path, 1).write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"metadata_0001\.parquet is missing or damaged"):
        EmbeddingStore.open(tmp_path)


def test_verify_notices_one_flipped_bit(tmp_path: Path) -> None:
    write(tmp_path, [pair_row(n) for n in range(3)])
    path = img_emb_path(tmp_path, 1)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    store = EmbeddingStore.open(tmp_path)
    with pytest.raises(InputError, match=r"img_emb_0001\.npy is damaged"):
        store.verify()


def test_what_is_no_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none does not exist; make it with: .* --out .*none$"):
        EmbeddingStore.open(tmp_path / "none")
    with pytest.raises(InputError, match=rf"is no store .*--pairs {tmp_path} .*--out stores/{tmp_path.name}$"):
        EmbeddingStore.open(tmp_path)
    with pytest.raises(InputError, match=r"\*\.tar is no store \(a store is a folder\).*--pairs .*\*\.tar"):
        EmbeddingStore.open(tmp_path / "*.tar")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    with pytest.raises(InputError, match="is a run, no store"):
        EmbeddingStore.open(tmp_path / "run")
    (tmp_path / "manifest.json").write_text('{"format": "littune-store", "version": 9}')
    with pytest.raises(InputError, match="version 9"):
        EmbeddingStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "littune-store", "version": 1}')
    with pytest.raises(InputError, match="is damaged"):
        EmbeddingStore.open(tmp_path)


def test_what_is_written_is_a_store(tmp_path: Path) -> None:
    write(tmp_path / "own", [pair_row(0)])
    assert is_store(tmp_path / "own")
