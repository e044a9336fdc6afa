"""Stores of drawn rows of any width, and a model for which every text has a direction of its own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore
from littune.store.writer import Batch, Row, open_writer
from littune.towers.image.tower import Identity

DIM = 16


class Drawn(LiT):
    """A text's direction is drawn from its letters; pictures are not read."""

    def __init__(self, dim: int = DIM, *, image_head: nn.Linear | None = None, center: float = 0.1) -> None:
        nn.Module.__init__(self)
        identity = Identity(weights="drawn", pooling="own", dim=dim)
        self.reference = ImageReference(spec="drawn", pooling="own", identity=identity)
        self.register_buffer("center", torch.full((dim,), center))
        self.dim = dim if image_head is None else image_head.out_features
        self.image, self.image_head, self.folder = None, image_head, None

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        rows = [self._direction(text) for text in ([texts] if isinstance(texts, str) else texts)]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def _direction(self, text: str) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
        row = np.random.default_rng(seed).standard_normal(self.dim)
        return (row / np.linalg.norm(row)).astype(np.float32)


def drawn_rows(num: int, *, first: int = 0) -> list[Row]:
    """Rows with something to filter on."""
    return [
        Row(
            key=f"k{number}",
            source=f"part {number % 3}",
            texts=(f"picture {number}", f"number {number}") if number % 5 else (),
            label=number % 4 if number % 7 else None,
            fields={"width": number % 10, "ratio": number / 4, "good": number % 2 == 0, "tags": ["a", f"t{number % 6}"]}
            | ({"extra": {"de": f"Bild {number % 8}"}} if number % 3 else {}),
        )
        for number in range(first, first + num)
    ]


def drawn(num: int, dim: int = DIM, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)


def write_store(
    folder: Path,
    embeddings: np.ndarray,
    rows: Sequence[Row] | None = None,
    *,
    classnames: tuple[str, ...] | None = None,
    shard: int = 40,
) -> EmbeddingStore:
    """A store in shards of so many rows."""
    rows = drawn_rows(len(embeddings)) if rows is None else rows
    identity = Identity(weights="drawn", pooling="own", dim=embeddings.shape[1])
    settings = Settings(
        kind="images",
        pairs="drawn",
        texts=(),
        tower="drawn",
        identity=identity,
        classnames=classnames,
        templates=None,
    )
    with open_writer(folder, settings, {}) as writer:
        for start in range(0, len(embeddings), shard):
            stop = start + shard
            writer.append(Batch(embeddings=embeddings[start:stop].astype(np.float32), rows=list(rows[start:stop])))
            writer.commit()
        writer.finish()
    return EmbeddingStore.open(folder)


def make_foreign(store: EmbeddingStore) -> EmbeddingStore:
    """The same files as somebody else would have written them."""
    (store.path / "manifest.json").unlink()
    return EmbeddingStore.open(store.path, allow_foreign=True)


@pytest.fixture
def reader() -> Drawn:
    return Drawn()


@pytest.fixture
def drawn_store(tmp_path: Path) -> EmbeddingStore:
    return write_store(tmp_path / "drawn", drawn(100))
