"""What an ONNX graph gives as an image tower: poolings, channels, identity."""

from pathlib import Path

import numpy as np
import pytest
import torch

from littune.base.errors import InputError
from littune.store.embed import provenance_of
from littune.towers.image.onnx_settings import OnnxSettings, Twin
from littune.towers.image.onnx_trunk import OnnxTrunk
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.image.trained import TrainedImageTower
from tests.towers.image.onnx_graphs import SETTINGS, map_by_hand, rows_by_hand, save_graph

PIXELS = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def tower(path: Path, *more: str, pooling: str = "own") -> ImageTower:
    save_graph(path, settings=SETTINGS + "".join(f"{line}\n" for line in more))
    return load_image_tower(f"onnx:{path}", pooling=pooling)


def test_rows_are_as_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    np.testing.assert_allclose(tower(path).encode(PIXELS), rows_by_hand(PIXELS.numpy(), path), atol=1e-5)


def test_blue_first_sees_the_channels_in_its_own_order(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    rows = tower(path, 'channels = "bgr"').encode(PIXELS)
    np.testing.assert_allclose(rows, rows_by_hand(PIXELS.numpy()[:, ::-1], path), atol=1e-5)


def test_channels_last(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx", layout="nhwc")
    rows = load_image_tower(f"onnx:{path}").encode(PIXELS)
    np.testing.assert_allclose(rows, rows_by_hand(PIXELS.numpy(), path), atol=1e-5)


@pytest.mark.parametrize(("output", "more"), [("map", []), ("map_last", ['output_layout = "nhwc"']), ("tokens", [])])
def test_maps_and_tokens_are_averaged(output: str, more: list[str], tmp_path: Path) -> None:
    rows = tower(tmp_path / "a.onnx", f'output = "{output}"', *more, pooling="mean").encode(PIXELS)
    np.testing.assert_allclose(rows, map_by_hand(PIXELS.numpy()).mean((2, 3)), atol=1e-5)


def test_the_first_token_is_the_class_token_where_there_are_prefix_tokens(tmp_path: Path) -> None:
    path, more = tmp_path / "a.onnx", ('output = "tokens"', "num_prefix_tokens = 2")
    tokens = map_by_hand(PIXELS.numpy()).transpose(0, 2, 3, 1).reshape(3, 64, 3)
    expected = {"cls": tokens[:, 0], "mean": tokens[:, 2:].mean(1)}
    expected["cls+mean"] = np.concatenate([expected["cls"], expected["mean"]], axis=1)
    for pooling, rows in expected.items():
        np.testing.assert_allclose(tower(path, *more, pooling=pooling).encode(PIXELS), rows, atol=1e-5)


def test_a_map_of_one_place_is_a_row(tmp_path: Path) -> None:
    rows = tower(tmp_path / "a.onnx", 'output = "narrow"').encode(PIXELS)
    np.testing.assert_allclose(rows, map_by_hand(PIXELS.numpy()).mean((2, 3)), atol=1e-5)


@pytest.mark.parametrize(
    ("output", "pooling", "message"),
    [
        ("tokens", "own", r"'tokens' is \(1, 64, 3\), many vectors an image; pool them with mean, cls or cls\+mean"),
        ("map", "own", "many vectors an image"),
        ("rows", "mean", r"'rows' is \(1, 5\), one vector an image; pool with own"),
        ("tokens", "cls", "has no class token"),
    ],
)
def test_poolings_that_an_output_does_not_allow(output: str, pooling: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        tower(tmp_path / "a.onnx", f'output = "{output}"', pooling=pooling)


def test_the_identity_is_of_all_that_decides_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    weights = {
        tower(path, *more, pooling="mean").identity.weights
        for more in (
            ['output = "map"'],
            ['output = "tokens"'],
            ['output = "tokens"', "num_prefix_tokens = 1"],
            ['output = "map"', 'channels = "bgr"'],
            ['output = "map"', 'output_layout = "nhwc"'],
        )
    }
    assert len(weights) == 5
    assert tower(path, 'output = "map"', pooling="mean").identity.weights in weights


def test_a_twin_lends_its_identity_until_anything_changes(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx")
    own = OnnxTrunk(path, OnnxSettings.read(path.with_suffix(".toml"))).own_digest()
    twin = Twin(weights="torch's", graph=own)

    def digest(**changes: object) -> str:
        values = vars(OnnxSettings.read(path.with_suffix(".toml"))) | {"exported": twin} | changes
        return OnnxTrunk(path, OnnxSettings(**values)).digest()

    assert digest() == "torch's"
    assert digest(output="mean") != "torch's"
    assert digest(channels="bgr") != "torch's"
    path.write_bytes(path.read_bytes() + b"\x18\x00")  # another version of the producer's, which changes no row
    assert digest() not in ("torch's", own)


def test_it_runs_in_its_own_precision_and_says_so(tmp_path: Path) -> None:
    loaded = tower(tmp_path / "a.onnx")
    before = loaded.encode(PIXELS)
    assert torch.equal(loaded.to("cpu", "bfloat16").encode(PIXELS), before)
    assert provenance_of(loaded)["precision"] == "float32"
    assert provenance_of(loaded)["runtime"].startswith("onnxruntime ")


def test_it_cannot_be_trained_or_bundled(tmp_path: Path) -> None:
    loaded = tower(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="cannot be trained: lock it"):
        TrainedImageTower(loaded, from_scratch=False)
    with pytest.raises(InputError, match="cannot be bundled"):
        loaded.save_weights(tmp_path / "w.safetensors")
