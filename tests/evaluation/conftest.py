"""A world of colours: a tower that sees a picture's mean colour, and a model that knows the words for some."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from littune.model.lit import ImageReference, LiT
from littune.store.embed import provenance_of
from littune.store.manifest import Settings
from littune.store.store import EmbeddingStore
from littune.store.writer import Batch, Row, open_writer
from littune.towers.image.tower import ImageTower, Preprocess

COLORS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
GRAY = 0.5


class MeanColor(nn.Module):
    """The mean colour, from 0 to 1, times a factor that makes another tower of it."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.factor * pixels.mean(dim=(2, 3))


class ColorReader(LiT):
    """The meaning of a text is the colours that it names; LiT but for the text tower."""

    def __init__(self, tower: ImageTower) -> None:
        nn.Module.__init__(self)
        self.reference = ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity)
        self.register_buffer("center", torch.full((3,), GRAY))
        self.dim, self.image, self.image_head = 3, None, None
        self._image_tower, self.folder, self.precision = tower, None, "float32"
        self.log_temperature = nn.Parameter(torch.tensor(10.0).log())
        self.text = nn.Module()
        self.text.spec = "colours"
        self.texts_read: list[str] = []

    def encode_text(self, texts: str | Sequence[str]) -> np.ndarray:
        texts = [texts] if isinstance(texts, str) else list(texts)
        self.texts_read += texts
        rows = [sum((_direction(word) for word in _words(text)), np.full(3, 1e-3)) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


def _words(text: str) -> list[str]:
    return text.lower().replace(".", " ").replace("_", " ").split()


def _direction(word: str) -> np.ndarray:
    return np.array(COLORS[word]) / 255 - GRAY if word in COLORS else np.zeros(3)


def make_tower(factor: float = 1.0, size: int = 8) -> ImageTower:
    preprocess = Preprocess(size=size, resize=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    return ImageTower.from_module(MeanColor(factor), preprocess=preprocess, name="mean-color")


@pytest.fixture
def model() -> ColorReader:
    return ColorReader(make_tower())


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LITTUNE_CACHE", str(folder))
    return folder


def paint(path: Path, color: str | tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), COLORS[color] if isinstance(color, str) else color).save(path)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Folders green, red and yellow; two of the five pictures are not the colour that their folder says."""
    folder = tmp_path / "classes"
    for path, color in {
        "green/a.png": "green",
        "green/b.png": "yellow",
        "red/a.png": "red",
        "red/b.png": "blue",
        "yellow/a.png": "yellow",
    }.items():
        paint(folder / path, color)
    return folder


@pytest.fixture
def pair_folder(tmp_path: Path) -> Path:
    """Four pictures with a text beside each; the third is painted in a colour that its text does not say."""
    folder = tmp_path / "pairs"
    for name, color, text in [
        ("a", "red", "a red square"),
        ("b", "green", "a green square"),
        ("c", "red", "a blue square"),
        ("d", "yellow", "something yellow"),
    ]:
        paint(folder / f"{name}.png", color)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


MakeStore = Callable[..., EmbeddingStore]


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    """Write a store of these rows, by default complete and of the model's tower."""

    def make(
        rows: Sequence[Row],
        embeddings: np.ndarray,
        *,
        tower: ImageTower | None = None,
        kind: str = "images",
        classnames: tuple[str, ...] | None = None,
        templates: tuple[str, ...] | None = None,
        finish: bool = True,
        name: str = "store",
    ) -> EmbeddingStore:
        tower = tower or make_tower()
        settings = Settings(
            kind=kind,
            pairs="by hand",
            texts=(),
            tower=tower.spec,
            identity=tower.identity,
            classnames=classnames,
            templates=templates,
        )
        with open_writer(tmp_path / name, settings, provenance_of(tower)) as writer:
            writer.append(Batch(embeddings=np.asarray(embeddings, np.float32), rows=list(rows)))
            if finish:
                writer.finish()
        return EmbeddingStore.open(tmp_path / name)

    return make
