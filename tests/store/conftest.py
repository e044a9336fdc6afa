"""A small real tower and small sources, so that the room is tested without weights or shards."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from littune.pairs.base import BadSample, LabelledImage, Pair, Part, Sample
from littune.towers.image.tower import ImageTower, Preprocess

SIZE = 8


class MeanColor(nn.Module):
    """Average colour → ``dim`` numbers, so that every row tells which picture it came from."""

    def __init__(self, dim: int = 6) -> None:
        super().__init__()
        self.dim = dim
        self.project = nn.Linear(3, dim, bias=False)
        with torch.no_grad():
            self.project.weight.copy_(torch.linspace(-1, 1, 3 * dim).reshape(dim, 3))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.project(pixels.mean(dim=(2, 3)))


def make_tower(dim: int = 6, module: nn.Module | None = None) -> ImageTower:
    return ImageTower.from_module(
        module or MeanColor(dim),
        preprocess=Preprocess(size=SIZE, resize=SIZE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        name="mean-color",
    )


@pytest.fixture
def tower() -> ImageTower:
    return make_tower()


def png(value: int) -> bytes:
    """A picture in a colour of its own for each of 2^16 values."""
    file = io.BytesIO()
    Image.new("RGB", (SIZE, SIZE), (value % 256, value // 256, 128)).save(file, "PNG")
    return file.getvalue()


def color(value: int) -> np.ndarray:
    return np.array([value % 256, value // 256, 128], np.float32) / 255


@dataclass
class ListPart:
    name: str
    rows: list[Sample | BadSample]
    mark: str = "as it was"

    def fingerprint(self) -> str:
        return self.mark

    def samples(self) -> Iterator[Sample | BadSample]:
        yield from self.rows


@dataclass
class ListSource:
    all_parts: list[ListPart]
    spec: str = "list"
    kind: str = "a list"
    texts: tuple[str, ...] = ()
    image_field: str | None = None
    classnames: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    num_samples: int | None = None

    def parts(self) -> Sequence[Part]:
        return self.all_parts


def pair(value: int, source: str = "a", image: bytes | None = None) -> Pair:
    return Pair(
        key=f"k{value}",
        source=source,
        image=png(value) if image is None else image,
        texts=(f"picture {value}", f"number {value}"),
        fields={"captions": [f"picture {value}", f"number {value}"], "extra": {"de": f"Bild {value}"}},
    )


def labelled(value: int, source: str = "a") -> LabelledImage:
    return LabelledImage(key=f"k{value}", source=source, image=png(value), label=value % 2)


def source_of(*sizes: int) -> ListSource:
    """Parts "a", "b", … of so many pairs each, numbered through."""
    parts, value = [], 0
    for name, size in zip("abcdefgh", sizes, strict=False):
        parts.append(ListPart(name, [pair(value + n, name) for n in range(size)]))
        value += size
    return ListSource(parts, num_samples=value)


def textured(*sizes: int) -> ListSource:
    """As ``source_of``, but each picture is of its own random colours, so that it matters what is seen of it."""
    source = source_of(*sizes)
    for part in source.all_parts:
        part.rows = [replace(row, image=noise(int(row.key.removeprefix("k")))) for row in part.rows]
    return source


def noise(value: int) -> bytes:
    file = io.BytesIO()
    coarse = np.random.default_rng(value).integers(0, 256, (3, 4, 3), np.uint8)
    Image.fromarray(coarse).resize((32, 24), Image.Resampling.NEAREST).save(file, "PNG")
    return file.getvalue()
