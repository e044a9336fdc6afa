"""LiT: the arithmetic of the shared space, what may be read out, and the trip through a folder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from littune.base.errors import InputError, MismatchError
from littune.base.files import read_json, write_json
from littune.model import lit as lit_module
from littune.model.lit import ImageReference, LiT
from littune.towers.text.sources import load_text_tower
from tests.evaluation.conftest import make_tower

TEXTS = ["a red square", "a green square", "something blue and much longer than the others"]


@pytest.fixture(scope="module")
def model() -> LiT:
    torch.manual_seed(0)
    tower = make_tower()
    model = LiT(
        text=load_text_tower("scratch:Ti", max_tokens=8, texts=TEXTS),
        reference=ImageReference(spec=tower.spec, pooling="own", identity=tower.identity),
        center=torch.full((3,), 0.25),
    )
    model.precision = "float32"
    model.image_tower = tower
    return model.eval()


def picture(*rgb: int) -> Image.Image:
    return Image.new("RGB", (8, 8), rgb)


def test_an_image_is_centred_and_of_unit_length(model: LiT) -> None:
    row = np.array([1.0, 0.0, 0.0]) - 0.25
    np.testing.assert_allclose(model.encode_image(picture(255, 0, 0))[0], row / np.linalg.norm(row), atol=1e-5)
    assert model.encode_image([]).shape == (0, 3)


def test_images_come_as_paths_bytes_or_pictures(model: LiT, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(255, 128, 0).save(path)
    rows = model.encode_image([path, str(path), path.read_bytes(), picture(255, 128, 0)], batch_size=3)
    assert (rows == rows[0]).all()
    transparent = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    assert (model.encode_image(transparent) == model.encode_image(picture(255, 255, 255))).all()


def test_texts_are_heads_of_pooled_outputs(model: LiT) -> None:
    rows = model.encode_text(TEXTS)
    with torch.no_grad():
        expected = model.text_head(model.text(*model.text.tokenize(TEXTS).batch(torch.arange(3))))
    np.testing.assert_allclose(rows, torch.nn.functional.normalize(expected).numpy(), atol=1e-5)
    assert (model.encode_text(TEXTS[0]) == model.encode_text(TEXTS)[:1]).all() or np.allclose(
        model.encode_text(TEXTS[0]), rows[:1], atol=1e-6
    )
    assert model.encode_text([]).shape == (0, 3)


def test_remembered_texts_are_the_same_and_run_once(model: LiT, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = model.encode_text(TEXTS)
    try:
        model.remember_texts()
        model.encode_text(TEXTS[:2])
        np.testing.assert_allclose(model.encode_text([*TEXTS, TEXTS[0]]), expected[[0, 1, 2, 0]], atol=1e-6)
        monkeypatch.setattr(type(model.text), "embed", None)
        model.encode_text(TEXTS)
    finally:
        model._remembered = None


def test_scores_are_probabilities_best_first(model: LiT) -> None:
    scores = model.classify(picture(0, 255, 0), ["red", "green", "blue"])
    assert sum(score.score for score in scores) == pytest.approx(1)
    assert [score.score for score in scores] == sorted((score.score for score in scores), reverse=True)


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        ([], ["{}"], "no labels"),
        ("cat, dog", ["{}"], r"labels are one string, 'cat, dog'; give a list: labels=\["),
        (["cat"], "a {}.", r"templates are one string, 'a \{\}\.'; give a list: templates=\["),
        (["cat", "dog", "cat"], ["{}"], "the label 'cat' is given more than once"),
    ],
)
def test_labels_and_templates_that_are_no_good_lists(
    model: LiT, labels: list[str] | str, templates: list[str] | str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.classify(picture(0, 0, 0), labels, templates=templates)


def test_another_tower_is_refused(model: LiT) -> None:
    with pytest.raises(MismatchError, match="other weights"):
        model.image_tower = make_tower(factor=2.0)


def test_saved_and_loaded_it_is_the_same(model: LiT, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = LiT.load(tmp_path, precision="float32")
    loaded.image_tower = make_tower()
    assert (loaded.encode_text(TEXTS) == model.encode_text(TEXTS)).all()
    assert (loaded.encode_image(picture(1, 2, 3)) == model.encode_image(picture(1, 2, 3))).all()
    assert loaded.logit_scale == model.logit_scale


def test_folders_that_are_no_runs(model: LiT, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the run .*none does not exist"):
        LiT.load(tmp_path / "none")
    with pytest.raises(InputError, match="no littune run"):
        LiT.load(tmp_path)
    (tmp_path / "config.toml").touch()
    with pytest.raises(InputError, match="not finished"):
        LiT.load(tmp_path)
    model.save(tmp_path)
    about = read_json(tmp_path / "model.json")
    write_json(tmp_path / "model.json", about | {"version": 99})
    with pytest.raises(InputError, match="version 99"):
        LiT.load(tmp_path)
    write_json(tmp_path / "model.json", about)
    (tmp_path / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(InputError, match="damaged"):
        LiT.load(tmp_path)


@pytest.mark.parametrize("rows", [3, 8192])
def test_a_folded_head_gives_the_cosines_and_their_gradients(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lit_module, "_ROWS", rows)
    torch.manual_seed(0)
    text = load_text_tower("scratch:Ti", max_tokens=8, texts=TEXTS)
    dim = 3 * text.dim
    reference = ImageReference(spec="x", pooling="own", identity=make_tower().identity)
    model = LiT(text=text, reference=reference, center=torch.zeros(dim)).double()
    embeddings = torch.randn(5, dim, dtype=torch.float64)
    slopes = torch.randn(5, 7, dtype=torch.float64)
    found = []
    for folded in (True, False):
        pooled = torch.randn(7, text.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        pooled.requires_grad_()
        if folded:
            images, texts = model.factors(embeddings, pooled)
            assert images.shape[1] == texts.shape[1] == text.dim + 1
        else:
            images = torch.nn.functional.normalize(embeddings, dim=1)
            texts = torch.nn.functional.normalize(model.text_head(pooled), dim=1)
        cosines = images @ texts.T
        model.zero_grad()
        (cosines * slopes).sum().backward()
        found.append((cosines, pooled.grad, model.text_head.weight.grad.clone(), model.text_head.bias.grad.clone()))
    for mine, plain in zip(*found, strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-7, atol=1e-8)  # normalize adds 1e-8 to a length
