"""What int8 costs, on sets that are named, on those of the run, and on none."""

import copy
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import tomli_w
from PIL import Image
from torch import Tensor, nn

from littune.apps.export.onnx.graphs import ImageGraph, TextGraph, cosines, to_graph, write_graph
from littune.apps.export.onnx.int8 import to_int8
from littune.apps.export.onnx.measure import ExportedTexts, _texts_alone, loss_of_int8
from littune.base.errors import LittuneError
from littune.evaluation.evaluation import evaluate
from littune.model.lit import LiT
from littune.store.embed import embed
from littune.towers.image.tower import ImageTower
from tests.apps.export.onnx.conftest import DIM, make_model, make_text
from tests.towers.conftest import TEXTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiT, Path, Path]:
    """A model wide enough for int8, what was written in float32 and in int8, and pictures with texts."""
    folder = tmp_path_factory.mktemp("onnx")
    model = make_model(make_text(width=96))
    for name, module in (("text_tower.onnx", TextGraph(model)), ("image_tower.onnx", ImageGraph(model))):
        graph = to_graph(module, name)
        write_graph(graph, folder / "float32" / name)
        write_graph(to_int8(graph), folder / "int8" / name)
    return model, folder, write_pictures(folder / "pictures")


def write_pictures(folder: Path) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, text in enumerate(TEXTS[:5]):
        Image.fromarray(rng.integers(256, size=(20, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(text)
    return folder


def test_exported_texts_stand_in_for_the_tower(made: tuple[LiT, Path, Path]) -> None:
    model, folder, _ = made
    texts = ExportedTexts(model, folder / "float32" / "text_tower.onnx")
    assert cosines(texts.embed(TEXTS).numpy(), model.encode_text(TEXTS)).min() >= 0.9999
    small = ExportedTexts(model, folder / "int8" / "text_tower.onnx")
    between = cosines(small.embed(TEXTS).numpy(), model.encode_text(TEXTS))
    assert 0.99 < between.min() < between.max() < 1 - 1e-7


def test_pictures_measure_both_towers(made: tuple[LiT, Path, Path]) -> None:
    model, folder, pictures = made
    (line,) = loss_of_int8(model, folder / "int8", [str(pictures)], with_images=True)
    (before,) = evaluate(model, str(pictures), details=False).results
    assert line.startswith(
        f"int8 on {pictures}: text → image recall@1 {before.metrics['text_to_image/recall@1']:.1%}, now "
    )
    assert "cosine of texts 0.99" in line and ", of images " in line


def test_before_is_measured_in_float32(
    made: tuple[LiT, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder, _ = made
    seen: list[str] = []
    encode = ImageTower.encode

    def watched(tower: ImageTower, pixels: Tensor) -> Tensor:
        seen.append(tower.precision)
        return encode(tower, pixels)

    monkeypatch.setattr(ImageTower, "encode", watched)
    model.image_tower.to("cpu", "bfloat16")
    try:
        # Pictures that no test before has embedded.
        loss_of_int8(model, folder / "int8", [str(write_pictures(tmp_path / "others"))], with_images=True)
        assert model.image_tower.precision == "bfloat16", "the model's own tower is left alone"
    finally:
        model.image_tower.to("cpu", "float32")
    assert set(seen) == {"float32"}


def test_the_head_of_images_is_copied_to_where_the_exported_rows_are(tmp_path: Path) -> None:
    model = make_model(make_text(), heads="image")
    write_graph(to_graph(TextGraph(model), "the texts"), tmp_path / "text_tower.onnx")
    model.image_head = OnGpu(DIM, model.dim)
    exported = _texts_alone(model, tmp_path)
    assert isinstance(exported.image_head, OnGpu)
    assert (exported.image_head.where, model.image_head.where) == ("cpu", "cuda")


class OnGpu(nn.Linear):
    """A head that says where it is, without a GPU."""

    where = "cuda"

    def cpu(self) -> "OnGpu":
        self.where = "cpu"
        return self


def test_a_store_of_a_module_that_is_gone_is_measured(made: tuple[LiT, Path, Path], tmp_path: Path) -> None:
    model, folder, pictures = made
    embed(model.image_tower, str(pictures), tmp_path / "store")
    gone = copy.copy(model)
    gone._image_tower = None  # as a run of a module of one's own is loaded
    (line,) = loss_of_int8(gone, folder / "int8", [str(tmp_path / "store")], with_images=False)
    assert line.endswith("images as they were")


def test_a_store_measures_the_texts_alone(made: tuple[LiT, Path, Path], tmp_path: Path) -> None:
    model, folder, pictures = made
    embed(model.image_tower, str(pictures), tmp_path / "store")
    (line,) = loss_of_int8(model, folder / "int8", [str(tmp_path / "store")], with_images=True)
    assert line.endswith("images as they were")


def test_the_loss_is_seen(made: tuple[LiT, Path, Path], tmp_path: Path) -> None:
    model, folder, pictures = made
    spoiled = onnx.load(folder / "float32" / "text_tower.onnx")
    table = max(spoiled.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    shape = tuple(table.dims)
    noise = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    table.raw_data = noise.tobytes()
    write_graph(spoiled, tmp_path / "text_tower.onnx")
    shutil.copyfile(folder / "float32" / "image_tower.onnx", tmp_path / "image_tower.onnx")
    (line,) = loss_of_int8(model, tmp_path, [str(pictures)], with_images=True)
    of_texts, of_images = (float(line.partition(f"{what} ")[2].split()[0]) for what in ("of texts", "of images"))
    assert of_texts < 0.9
    assert of_images > 0.9999


def test_by_default_the_runs_own_sets_are_measured(made: tuple[LiT, Path, Path], tmp_path: Path) -> None:
    model, folder, pictures = made
    val = [str(pictures), str(tmp_path / "gone")]
    (tmp_path / "config.toml").write_text(tomli_w.dumps({"val": val}))
    model.folder = tmp_path
    try:
        first, second = loss_of_int8(model, folder / "int8", (), with_images=True)
    finally:
        model.folder = None
    assert first.startswith(f"int8 on {pictures}: ")
    assert second.startswith(f"int8 was not measured on {tmp_path / 'gone'}: ")


def test_without_sets_it_says_how(made: tuple[LiT, Path, Path]) -> None:
    model, folder, _ = made
    (line,) = loss_of_int8(model, folder / "int8", (), with_images=True)
    assert "not measured" in line and "--on" in line


def test_a_set_that_was_named_must_be_there(made: tuple[LiT, Path, Path], tmp_path: Path) -> None:
    model, folder, _ = made
    with pytest.raises(LittuneError, match="gone"):
        loss_of_int8(model, folder / "int8", [str(tmp_path / "gone")], with_images=True)


def test_int8_is_smaller(made: tuple[LiT, Path, Path]) -> None:
    _, folder, _ = made
    large, small = (folder / name / "text_tower.onnx" for name in ("float32", "int8"))
    assert small.stat().st_size < 0.5 * large.stat().st_size  # so small a tower has as much graph as weights
