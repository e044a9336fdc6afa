"""A table of arrays by hand: what lies where in torch, and what is wrong with a file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from littune.base.errors import InputError
from littune.towers.lit.arrays import Entry, check_arrays, dense_entries, extract, fill, norm_entries


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 6, 2)
        self.fused = nn.Linear(6, 12)
        self.out = nn.Linear(6, 6)
        self.norm = nn.LayerNorm(6)


ENTRIES = [
    Entry("patches/kernel", (2, 2, 3, 6), "patches.weight", "convolution"),
    Entry("patches/bias", (6,), "patches.bias"),
    *dense_entries("query", "fused", (6,), (2, 3)),
    *dense_entries("key", "fused", (6,), (2, 3)),
    *dense_entries("out", "out", (2, 3), (6,)),
    *norm_entries("norm", "norm", 6),
]


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    return {entry.name: drawn(*entry.shape) + index for index, entry in enumerate(ENTRIES)}


def test_each_layout_computes_what_its_axes_say(arrays: dict[str, np.ndarray]) -> None:
    layers = Layers()
    fill(layers, arrays, ENTRIES)
    picture, rows = drawn(1, 2, 2, 3), drawn(4, 6)
    with torch.no_grad():
        patch = layers.patches(torch.from_numpy(picture).permute(0, 3, 1, 2))[0, :, 0, 0].numpy()
        fused = layers.fused(torch.from_numpy(rows)).numpy()
        out = layers.out(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(
        patch, np.einsum("hwc,hwcd->d", picture[0], arrays["patches/kernel"]) + arrays["patches/bias"], rtol=1e-5
    )
    query, key = (
        (np.einsum("nd,dhk->nhk", rows, arrays[f"{name}/kernel"]) + arrays[f"{name}/bias"]).reshape(4, 6)
        for name in ("query", "key")
    )
    np.testing.assert_allclose(fused, np.concatenate([query, key], axis=1), rtol=1e-5)
    heads = rows.reshape(4, 2, 3)
    np.testing.assert_allclose(
        out, np.einsum("nhk,hkd->nd", heads, arrays["out/kernel"]) + arrays["out/bias"], rtol=1e-5
    )


def test_what_is_put_in_comes_out(arrays: dict[str, np.ndarray]) -> None:
    layers = Layers()
    fill(layers, arrays, ENTRIES)
    found = extract(layers.state_dict(), ENTRIES)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.float32


def test_a_whole_set_of_arrays_passes(arrays: dict[str, np.ndarray]) -> None:
    check_arrays(arrays, ENTRIES, Path("a.npz"))


def test_names_that_are_missing_or_left_over_are_named(arrays: dict[str, np.ndarray]) -> None:
    arrays["norm/scael"] = arrays.pop("norm/scale")
    with pytest.raises(
        InputError, match=r"a.npz lacks norm/scale and holds norm/scael, which is no part of such a checkpoint"
    ):
        check_arrays(arrays, ENTRIES, Path("a.npz"))
    del arrays["norm/bias"], arrays["norm/scael"]
    with pytest.raises(InputError, match=r"a.npz lacks norm/bias and 1 more$"):
        check_arrays(arrays, ENTRIES, Path("a.npz"))


def test_another_shape_is_named(arrays: dict[str, np.ndarray]) -> None:
    arrays["out/kernel"] = drawn(6, 6)
    with pytest.raises(InputError, match=r"out/kernel has the shape \(6, 6\); with the others it must be \(2, 3, 6\)"):
        check_arrays(arrays, ENTRIES, Path("a.npz"))
