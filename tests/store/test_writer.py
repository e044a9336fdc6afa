import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError, LittuneError, MismatchError
from littune.store import writer as writer_module
from littune.store.manifest import Cursor, Manifest, Settings, Skipped, has_manifest
from littune.store.shards import Row, img_emb_path, metadata_path
from littune.store.store import EmbeddingStore
from littune.store.views import Views
from littune.store.writer import Batch, StoreWriter, open_writer
from littune.towers.image.tower import Identity

DIM = 4


def settings_of(**changes) -> Settings:
    identity = changes.pop("identity", Identity(weights="w", pooling="own", dim=DIM, preprocess="p"))
    base = {"kind": "images", "pairs": "list", "texts": (), "tower": "t", "classnames": None, "templates": None}
    return Settings(identity=identity, **{**base, **changes})


def batch_of(start: int, stop: int, skipped: tuple[Skipped, ...] = ()) -> Batch:
    """Rows of the part "a"."""
    numbers = np.arange(start, stop, dtype=np.float32)
    return Batch(
        embeddings=np.repeat(numbers[:, None], DIM, axis=1),
        rows=[Row(key=str(n), source="a", texts=(f"text {n}",)) for n in range(start, stop)],
        skipped=skipped,
        cursors={"a": Cursor(fingerprint="f", taken=stop, complete=False)},
    )


def opened(folder: Path, provenance: Mapping[str, str] | None = None, **changes):
    return open_writer(folder, settings_of(**changes), provenance or {"torch": "1"})


def assert_holds(folder: Path, count: int) -> None:
    """Rows 0 … count - 1, each with its own embedding, key and text."""
    store = EmbeddingStore.open(folder)
    assert store.num_rows == count
    assert store.keys() == [str(n) for n in range(count)]
    assert store.texts() == [(f"text {n}",) for n in range(count)]
    np.testing.assert_array_equal(store.embeddings(), np.repeat(np.arange(count)[:, None], DIM, axis=1))


def test_appended_rows_are_committed_by_the_hundreds(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        for start in range(0, 1100, 50):
            writer.append(batch_of(start, start + 50))
        assert [shard.rows for shard in writer.manifest.shards] == [500, 500]
        assert writer.manifest.parts["a"].taken == 1000
    assert_holds(tmp_path, 1100)


def test_a_slow_tower_commits_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now)
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 2))
        assert not writer.manifest.shards
        now = 31.0
        writer.append(batch_of(2, 4))
        assert writer.manifest.num_rows == 4


def test_leaving_with_an_error_keeps_what_was_appended(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
        raise RuntimeError
    assert_holds(tmp_path, 3)
    assert not EmbeddingStore.open(tmp_path).complete


@pytest.mark.parametrize("step", ["img_emb", "metadata", "manifest"])
def test_killed_between_any_two_steps_of_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """A commit is cut short behind ``step``; the next writer goes on where the manifest says."""
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))

    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    what = {"img_emb": "shards._to_table", "metadata": "manifest.Manifest.write", "manifest": "writer._State"}
    writer = StoreWriter(tmp_path, Manifest.read(tmp_path))
    writer.append(batch_of(3, 5))
    with monkeypatch.context() as patch:
        patch.setattr(f"littune.store.{what[step]}", kill)
        with pytest.raises(Killed):
            writer.commit()
    assert img_emb_path(tmp_path, 1).exists()

    with opened(tmp_path) as again:
        taken = again.manifest.parts["a"].taken
        assert taken == again.manifest.num_rows == (3 if step in ("img_emb", "metadata") else 5)
        assert img_emb_path(tmp_path, 1).exists() == (taken == 5)
        again.append(batch_of(taken, 9))
        again.finish()
    assert_holds(tmp_path, 9)
    assert EmbeddingStore.open(tmp_path).complete


def test_an_interrupted_commit_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
        with monkeypatch.context() as patch:
            patch.setattr(writer_module, "_State", interrupt)
            with pytest.raises(KeyboardInterrupt):
                writer.commit()
    assert_holds(tmp_path, 3)


def test_files_written_aside_by_a_killed_process_go(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
    aside = tmp_path / "img_emb" / ".img_emb_0001.npy.77.tmp"
    aside.write_bytes(b"half")
    with opened(tmp_path):
        assert not aside.exists()
    assert_holds(tmp_path, 3)


def test_a_full_disk_is_said_and_nothing_committed_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
    with (
        monkeypatch.context() as patch,
        pytest.raises(LittuneError, match="no space left"),
        opened(tmp_path) as writer,
    ):
        patch.setattr("littune.base.files.os.fsync", full)
        writer.append(batch_of(3, 5))
        writer.commit()
    with opened(tmp_path) as writer:
        writer.append(batch_of(3, 5))
    assert_holds(tmp_path, 5)


@pytest.mark.parametrize("value", [np.inf, np.nan, 70_000.0, -1e9])
def test_what_float16_cannot_hold_is_an_error_that_names_the_row(tmp_path: Path, value: float) -> None:
    batch = batch_of(0, 3)
    batch.embeddings[1, 2] = value
    with opened(tmp_path) as writer:
        with pytest.raises(InputError, match="'1' in a does not fit float16"):
            writer.append(batch)
        writer.append(batch_of(0, 2))
    assert_holds(tmp_path, 2)


def test_a_slash_behind_the_source_makes_no_difference(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
    with opened(tmp_path, pairs="list/") as writer:
        assert writer.manifest.num_rows == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "prototypes"}, "its kind is images, not prototypes"),
        ({"pairs": "other.tar"}, "its source is list, not other.tar"),
        ({"texts": ("keywords", "name")}, "its choice of texts is the source's own, not keywords,name"),
        ({"image_field": "photo"}, "its choice of images is the source's own, not photo"),
        (
            {"views": Views(num=2, augment="inception", flip=True, seed=1)},
            r"its choice of views is none, not 2 \(inception, flip, seed 1\)",
        ),
        ({"classnames": ("cat",)}, "its class names differ"),
        ({"templates": ("a {}",)}, "its templates differ"),
        (
            {"tower": "u", "identity": Identity(weights="v", pooling="own", dim=DIM, preprocess="p")},
            "tower is t, not u",
        ),
        ({"identity": Identity(weights="w", pooling="own", dim=DIM, preprocess="q")}, "."),
    ],
)
def test_other_settings_are_a_mismatch_that_names_the_difference(tmp_path: Path, changes: dict, message: str) -> None:
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
    with pytest.raises(MismatchError, match=message) as error, opened(tmp_path, **changes):
        pass
    assert "\n" not in str(error.value)
    assert_holds(tmp_path, 3)


def test_the_same_weights_by_another_spec_go_on(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
    with opened(tmp_path, tower="the same elsewhere") as writer:
        assert writer.manifest.num_rows == 3


def test_other_provenance_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path, {"precision": "float32"}) as writer:
        writer.append(batch_of(0, 3))
    for _ in range(2):
        with opened(tmp_path, {"precision": "bfloat16"}) as writer:
            writer.append(batch_of(3, 4))
    assert "precision float32" in capsys.readouterr().err
    assert Manifest.read(tmp_path).provenance == {"precision": "float32 + bfloat16"}


def test_a_folder_of_other_things_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(InputError, match=r"thesis\.doc"), opened(tmp_path):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.doc"]


def test_a_file_and_a_foreign_manifest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"), opened(tmp_path / "file"):
        pass
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(InputError, match="not the manifest of a littune store"), opened(tmp_path / "web"):
        pass


def test_two_writers_cannot_share_a_folder(tmp_path: Path) -> None:
    with opened(tmp_path), pytest.raises(LittuneError, match="in use by another"), opened(tmp_path):
        pass


PARTS = {"a": 7, "b": 3, "c": 0, "d": 11, "e": 2}
"""Parts and how many rows each has."""


def rank(folder: Path):
    return open_writer(folder, settings_of(), {}, parts=list(PARTS), group="launch")


def piece(part: str, start: int, stop: int) -> Batch:
    """Rows of a part; a row's embedding says which it is."""
    rows = [Row(key=f"{part}{n}", source=part) for n in range(start, stop)]
    numbers = np.arange(start, stop, dtype=np.float32) + 100 * list(PARTS).index(part)
    cursor = Cursor(fingerprint=part, taken=stop, complete=stop == PARTS[part])
    return Batch(embeddings=np.repeat(numbers[:, None], DIM, axis=1), rows=rows, cursors={part: cursor})


def assert_all_in_order(folder: Path) -> None:
    store = EmbeddingStore.open(folder)
    assert store.complete
    assert store.keys() == [f"{part}{n}" for part, num in PARTS.items() for n in range(num)]
    assert store.embeddings()[:, 0].tolist() == [
        100 * i + n for i, num in enumerate(PARTS.values()) for n in range(num)
    ]
    assert store.manifest is not None
    assert list(store.manifest.parts) == list(PARTS)
    store.verify()


def test_ranks_commit_on_top_of_each_other(tmp_path: Path) -> None:
    with rank(tmp_path) as first, rank(tmp_path) as second:
        second.append(piece("b", 0, 3))
        second.append(piece("d", 0, 5))
        second.commit()
        first.append(piece("a", 0, 7))
        first.commit()
        assert [(shard.number, shard.part) for shard in first.manifest.shards] == [(0, "b"), (1, "d"), (2, "a")]
        first.append(piece("c", 0, 0))
        first.append(piece("e", 0, 2))
        first.finish()
        assert not first.manifest.complete
        second.append(piece("d", 5, 11))
        second.finish()
        assert second.manifest.complete
        first.look()
        assert first.manifest.complete
    assert [shard.number for shard in Manifest.read(tmp_path).shards] == [2, 0, 1, 4, 3]
    assert_all_in_order(tmp_path)


def test_readers_that_go_by_names_find_embeddings_and_metadata_together(tmp_path: Path) -> None:
    with rank(tmp_path) as writer:
        for part in "badec":
            writer.append(piece(part, 0, PARTS[part]))
            writer.commit()
        writer.finish()
    own = EmbeddingStore.open(tmp_path)
    (tmp_path / "manifest.json").unlink()
    by_name = EmbeddingStore.open(tmp_path, allow_foreign=True)
    keys = by_name.keys()
    assert keys[:4] == ["b0", "b1", "b2", "a0"]
    of_key = dict(zip(own.keys(), own.embeddings()[:, 0].tolist(), strict=True))
    assert by_name.embeddings()[:, 0].tolist() == [of_key[key] for key in keys]


def test_rows_that_another_process_took_are_not_taken_twice(tmp_path: Path) -> None:
    with rank(tmp_path) as first, rank(tmp_path) as second:
        first.append(piece("a", 0, 4))
        second.append(piece("a", 0, 5))
        first.commit()
        with pytest.raises(LittuneError, match="another process has embedded a into"):
            second.commit()
        first.append(piece("a", 4, 7))
    assert EmbeddingStore.open(tmp_path).keys() == [f"a{n}" for n in range(7)]


def test_a_shard_holds_several_parts_only_where_nothing_can_come_between(tmp_path: Path) -> None:
    with rank(tmp_path) as writer:
        writer.append(piece("b", 0, 2))
    with rank(tmp_path) as writer:
        for part, start in (("a", 0), ("b", 2), ("c", 0), ("d", 0), ("e", 0)):
            writer.append(piece(part, start, PARTS[part]))
        writer.finish()
    # b was begun before, so what comes of it now may not follow a in one shard; c, d and e were not.
    assert [(shard.part, shard.rows) for shard in Manifest.read(tmp_path).shards] == [("a", 7), ("b", 2), ("b", 14)]
    assert_all_in_order(tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_rows_are_in_order_whatever_ranks_there_were_and_when_they_died(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    while not (has_manifest(tmp_path) and Manifest.read(tmp_path).complete):
        size = int(random.integers(1, 4))
        with ExitStack() as stack:
            writers = [stack.enter_context(rank(tmp_path)) for _ in range(size)]
            work = [pieces_left(writer.manifest, list(PARTS)[n::size], random) for n, writer in enumerate(writers)]
            for _ in range(int(random.integers(1, 20))):
                number = int(random.integers(size))
                if work[number]:
                    writers[number].append(work[number].pop(0))
                else:
                    writers[number].finish()
                if random.random() < 0.3:
                    writers[number].commit()
            for writer in writers:  # die, with what is not committed
                writer._state = replace(writer._state, pending=())
    assert_all_in_order(tmp_path)


def pieces_left(manifest: Manifest, parts: list[str], random: np.random.Generator) -> list[Batch]:
    pieces = []
    for part in parts:
        taken = manifest.parts[part].taken if part in manifest.parts else 0
        while taken < PARTS[part] or (PARTS[part] == 0 and part not in manifest.parts):
            stop = min(PARTS[part], taken + int(random.integers(1, 5)))
            pieces.append(piece(part, taken, stop))
            taken = stop
            if PARTS[part] == 0:
                break
    return pieces


def test_an_unfinished_store_of_an_earlier_version_goes_on_with_ranks(tmp_path: Path) -> None:
    with rank(tmp_path) as writer:
        writer.append(piece("a", 0, 7))
        writer.append(piece("b", 0, 2))
    raw = json.loads((tmp_path / "manifest.json").read_text())
    for shard in raw["shards"]:
        del shard["number"], shard["part"], shard["views_sha256"]
    (tmp_path / "manifest.json").write_text(json.dumps(raw))
    with rank(tmp_path) as first, rank(tmp_path) as second:
        for part in ("c", "e"):
            first.append(piece(part, 0, PARTS[part]))
        first.finish()
        second.append(piece("b", 2, 3))
        second.append(piece("d", 0, 11))
        second.finish()
    assert_all_in_order(tmp_path)


def test_views_are_committed_with_their_rows(tmp_path: Path) -> None:
    views = Views(num=2, augment="inception", flip=False, seed=0)
    with opened(tmp_path, views=views) as writer:
        plain = batch_of(0, 3)
        writer.append(replace(plain, views=[plain.embeddings + 10, plain.embeddings + 20]))
    (shard,) = Manifest.read(tmp_path).shards
    assert len(shard.views_sha256) == 2
    with pytest.raises(InputError, match="does not fit float16"), opened(tmp_path, views=views) as writer:
        writer.append(replace(plain, views=[plain.embeddings, plain.embeddings + np.inf]))
    leftover = img_emb_path(tmp_path, 1, 2)
    leftover.write_bytes(img_emb_path(tmp_path, 0, 2).read_bytes())
    with opened(tmp_path, views=views):
        assert not leftover.exists()
    store = EmbeddingStore.open(tmp_path)
    every = store.take(np.array([2, 2, 2]), np.array([0, 1, 2]))
    assert every[:, 0].tolist() == [2, 12, 22]
    assert_holds(tmp_path, 3)


def test_going_on_with_a_damaged_store_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3))
    metadata_path(tmp_path, 0).unlink()
    with pytest.raises(InputError, match="metadata_0000"), opened(tmp_path):
        pass


def test_skipped_rows_and_places_are_recorded(tmp_path: Path) -> None:
    bad = Skipped(key="x", source="a", reason="is empty (0 bytes)")
    with opened(tmp_path) as writer:
        writer.append(batch_of(0, 3, skipped=(bad,)))
    manifest = Manifest.read(tmp_path)
    assert manifest.skipped == (bad,)
    assert manifest.parts == {"a": Cursor(fingerprint="f", taken=3, complete=False)}


def test_a_discarded_store_leaves_the_folder_free(tmp_path: Path) -> None:
    with opened(tmp_path) as writer:
        writer.discard()
    with opened(tmp_path, pairs="other") as writer:
        writer.append(batch_of(0, 1))
    assert_holds(tmp_path, 1)
