"""The image towers of the five published files, name by name, and of both generations."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from littune.base.errors import InputError
from littune.towers.lit.npz import Checkpoint
from littune.towers.lit.vit import ImageShape, image_entries, image_shape
from tests.towers.lit.checkpoints import PUBLISHED, VARIANTS, Sizes, draw, shapes


def expected(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """What belongs to the image tower alone."""
    names = shapes(sizes)
    return {name: names[name] for name in names if name.startswith("img/") and not name.startswith("img/head/")}


def checkpoint(sizes: Sizes) -> Checkpoint:
    arrays = {name: array for name, array in draw(sizes).items() if name.startswith("img/")}
    return Checkpoint(path=Path("a.npz"), names=frozenset(arrays), arrays=arrays)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("old", [False, True])
def test_the_table_of_the_published_image_towers(name: str, old: bool) -> None:
    sizes = replace(PUBLISHED[name], old_image=old)
    shape = ImageShape(
        width=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        patch=16,
        grid=14,
        class_position=True,
        generation="old" if old else "new",
    )
    assert {entry.name: entry.shape for entry in image_entries(shape)} == expected(sizes)
    assert shape.side == 224


@pytest.mark.parametrize("name", VARIANTS)
def test_the_shape_is_that_of_the_arrays(name: str) -> None:
    sizes = VARIANTS[name]
    shape = image_shape(checkpoint(sizes))
    assert (shape.width, shape.depth, shape.num_heads, shape.patch, shape.grid) == (32, 2, 4, 16, 2)
    assert shape.class_position == sizes.class_position
    assert shape.generation == ("old" if sizes.old_image else "new")
    assert {entry.name: entry.shape for entry in image_entries(shape)} == expected(sizes)


def test_an_odd_grid_is_an_error() -> None:
    found = checkpoint(VARIANTS["LiT-B16B"])
    found.arrays["img/Transformer/posembed_input/pos_embedding"] = np.zeros((1, 7, 32), np.float32)
    with pytest.raises(InputError, match=r"a.npz has an image tower of 16x16 patches of 3 channels and 7 positions"):
        image_shape(found)
