"""Two towers apart, and the code that comes with them: run as it is, it says what the model says."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from littune.apps.export.hf.apart import write_apart
from littune.apps.export.hf.image import image_model
from littune.apps.export.hf.saving import quietly
from littune.config import Heads
from littune.model.lit import LiT
from tests.apps.export.drawn_models import TEXTS, image_tower, lit, minimal_cosine, pictures, text_tower

# Widths and heights at which a crop falls between two pixels too.
SIZES = ((260, 200), (215, 200), (200, 215), (50, 50))


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the code makes."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    with quietly():
        exec(code, names)
    return names


def assert_same(model: LiT, names: dict[str, Any]) -> None:
    assert minimal_cosine(names["encode_texts"](TEXTS), model.encode_text(TEXTS)) > 0.9999
    photos = pictures(SIZES)
    assert minimal_cosine(names["encode_images"](photos), model.encode_image(photos)) > 0.9999
    for score in model.classify(names["images"][0], names["texts"], templates=["{}"]):
        probability = float(names["probabilities"][0, names["texts"].index(score.label)])
        assert probability == pytest.approx(score.score, abs=1e-4)


@pytest.mark.parametrize(
    ("encoder", "text", "image", "pooling", "heads"),
    [
        ("bert", "first", "test_vit", "own", "text"),
        ("bert", "last", "clip", "own", "both"),
        ("scratch", "mean", "test_vit", "cls+mean", "image"),
        ("bert", "mean", "swin", "own", "none"),
        ("bert", "mean", "swin", "mean", "text"),
        ("bert", "mean", "test_resnet", "mean", "text"),
        ("scratch", "last", "vit", "own", "both"),
        ("bert", "mean", "vit", "mean", "text"),
    ],
)
def test_the_code_says_what_the_model_says(
    encoder: str,
    text: str,
    image: str,
    pooling: str,
    heads: Heads,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = lit(text_tower(encoder, text), image_tower(image, pooling), heads)
    code = write_apart(model, image_model(model.image_tower), tmp_path)
    assert_same(model, run(code, tmp_path, monkeypatch))


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_that_is_read_is_read_there_too(pooling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lit(text_tower("scratch", pooling, padded=True), image_tower("vit"))
    assert_same(model, run(write_apart(model, image_model(model.image_tower), tmp_path), tmp_path, monkeypatch))


def test_texts_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = lit(text_tower("bert", "mean"), image_tower("vit"))
    names = run(write_apart(model, None, tmp_path), tmp_path, monkeypatch)
    assert (
        minimal_cosine(names["text_embeddings"], model.encode_text(["a photo of a cat.", "a photo of a dog."])) > 0.9999
    )
    assert not (tmp_path / "image_tower").exists()


def test_all_numbers_of_the_model_are_kept(tmp_path: Path) -> None:
    model = lit(text_tower("bert", "mean"), image_tower("vit"), "both", bias=-2.5)
    write_apart(model, None, tmp_path)
    heads = load_file(tmp_path / "heads.safetensors")
    sides = {f"{side}_head.{part}" for side in ("text", "image") for part in ("weight", "bias")}
    assert heads.keys() == {"center", "log_temperature", "bias"} | sides
    assert float(heads["bias"]) == -2.5
